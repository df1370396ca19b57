/* The upper end of a ReLU that has one, CEILING: min(v, CEILING), which a NaN passes, and what of a
   gradient passes a ReLU whose result is v, none at either end. CUT_ONE and CUT_OFF are of single
   values. */
#ifdef CEILING
#define CUT(v) min_or_nan(v)
#define CUT_ONE(v) ((v) > CEILING ? CEILING : (v))
#define CUT_OFF(v) ((v) >= CEILING)
#define PASSED(d, v, floor) select((d), (WIDE)(0.0f), ((v) <= (floor)) | ((v) >= (WIDE)(CEILING)))
inline WIDE min_or_nan(const WIDE v) { return select(v, (WIDE)(CEILING), v > (WIDE)(CEILING)); }
#else
#define CUT(v) (v)
#define CUT_ONE(v) (v)
#define CUT_OFF(v) 0
#define PASSED(d, v, floor) select((d), (WIDE)(0.0f), (v) <= (floor))
#endif
