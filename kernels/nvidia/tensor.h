/* NVIDIA's tensor cores and asynchronous copies, as OpenCL C can reach them: inline PTX.

   A line that starts with //@@ is an instruction of Hopper alone (sm_90a), which the driver's
   OpenCL compiler refuses. It goes through as a comment; mpitrain/runtime/nvidia.py takes the mark
   away in the program's PTX, and the driver assembles that once more. ON_HOPPER 1 multiplies by
   wgmma (a group of 128 work-items, both operands in local memory), 0 by mma.sync (Ampere and
   later).

   FORMAT says what a row of 128 bytes holds: 64 channels as bfloat16, 32 as float32 rounded to
   TF32, or 32 as pairs of bfloat16, high parts first: x = high + low to 16 bits, and x w = high
   high + high low + low high.

   Sums lie as both instructions leave them: of 64 rows x COLUMNS, work-item i of 128 has d[4 j + 2
   half + e], which is row 16 (i / 32) + 8 half + (i % 32) / 4, column 8 j + 2 (i % 4) + e. */
#include "bfloat16.h"
#define BF16 0
#define TF32 1
#define HIGH 2

/* Bytes of local memory that the kernel takes, written into the PTX: more than OpenCL C lets an
   array have. */
#define LOCAL_MEMORY(bytes) asm volatile("//@local %0" : : "n"(bytes))
/* Groups that have to fit on a unit at once, 0 for whatever comes: fewer registers for each. */
#if RESIDENT
#define RESIDENT_GROUPS() asm volatile("//@resident %0" : : "n"(RESIDENT))
#else
#define RESIDENT_GROUPS()
#endif

/* Local memory as 32-bit addresses. */
#define ADDRESS(p) ((uint)(ulong)(p))

/* Copy 16 bytes to local memory without waiting for them, or put zeros there if `take` is 0. */
inline void copy_later(const uint to, __global const uint4 *from, const int take) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(to), "l"((ulong)from), "r"(take)
                 : "memory");
}
#define COPIES_ISSUED() asm volatile("cp.async.commit_group;" : : : "memory")
/* Wait until at most `later` of the groups issued last are under way, and let the tensor cores see
   what has come. */
#define COPIES_WAIT(later) asm volatile("cp.async.wait_group %0;" : : "n"(later) : "memory")

/* Keep an int in a register instead of computing it anew where it is used. */
#define KEEP(value) asm volatile("" : "+r"(value))

/* n / d for 0 <= n < 2^31, by what `reciprocal` in tensor.py gives for d. */
inline int divide(const int n, const uint factor, const int shift) {
    return (int)(((ulong)(uint)n * factor) >> shift);
}

#define F8(d, i)                                                                                   \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define F32(d, i) F8(d, i), F8(d, i + 8), F8(d, i + 16), F8(d, i + 24)
#define N32                                                                                        \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                       \
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define N64                                                                                        \
    N32 ","                                                                                        \
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"                         \
        "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define N128                                                                                       \
    N64 ","                                                                                        \
        "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"                         \
        "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"                         \
        "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"             \
        "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#if COLUMNS == 64
#define SUMS(d) F32(d, 0)
#define SUM_NUMBERS N32
#define LEFT "%32"
#define RIGHT "%33"
#elif COLUMNS == 128
#define SUMS(d) F32(d, 0), F32(d, 32)
#define SUM_NUMBERS N64
#define LEFT "%64"
#define RIGHT "%65"
#else
#define SUMS(d) F32(d, 0), F32(d, 32), F32(d, 64), F32(d, 96)
#define SUM_NUMBERS N128
#define LEFT "%128"
#define RIGHT "%129"
#endif
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

#if ON_HOPPER
/* What wgmma takes as an operand: where it starts (16-byte units), strides, and that the 16-byte
   pieces of the rows of 128 bytes are exclusive-ored with the row's number modulo 8. */
inline ulong operand(const uint address, const uint leading, const uint stride) {
    return (1ul << 62) | ((ulong)(stride >> 4) << 32) | ((ulong)(leading >> 4) << 16) |
           ((address & 0x3ffff) >> 4);
}
#define STORES_SEEN() asm volatile("fence.proxy.async.shared::cta;" : : : "memory")
#define PRODUCTS_START() asm volatile("//@@ wgmma.fence.sync.aligned;" : : : "memory")
#define PRODUCTS_ISSUED() asm volatile("//@@ wgmma.commit_group.sync.aligned;" : : : "memory")
#define PRODUCTS_WAIT(later)                                                                       \
    asm volatile("//@@ wgmma.wait_group.sync.aligned %0;" : : "n"(later) : "memory")
/* d += left right, for a depth of 32 bytes. PIXEL_ROWS: the depth's pixels are rows in local memory
   (else rows are pixels or output channels, and the depth lies along them). */
#if FORMAT == TF32
#define MULTIPLY(d, left, right)                                                                   \
    asm volatile(                                                                                  \
        "//@@ {.reg .pred p; setp.eq.u32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n" TEXT(         \
            COLUMNS) "k8.f32.tf32.tf32 {" SUM_NUMBERS "}, " LEFT ", " RIGHT ", p, 1, 1;}"          \
        : SUMS(d)                                                                                  \
        : "l"(left), "l"(right))
#else
#define MULTIPLY(d, left, right)                                                                   \
    asm volatile(                                                                                  \
        "//@@ {.reg .pred p; setp.eq.u32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n" TEXT(         \
            COLUMNS) "k16.f32.bf16.bf16 {" SUM_NUMBERS "}, " LEFT ", " RIGHT                       \
                     ", p, 1, 1, " TEXT(PIXEL_ROWS) ", " TEXT(PIXEL_ROWS) ";}"                     \
        : SUMS(d)                                                                                  \
        : "l"(left), "l"(right))
#endif
/* The sums are read after the wait, not before. */
#define SUMS_DONE(d) asm volatile("" : SUMS(d))
#else
#define STORES_SEEN()
#define PRODUCTS_START()
#define PRODUCTS_ISSUED()
#define PRODUCTS_WAIT(later)
#define SUMS_DONE(d)
#if PIXEL_ROWS
#define LOAD_MATRICES "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16"
#else
#define LOAD_MATRICES "ldmatrix.sync.aligned.m8n8.x4.shared.b16"
#endif
inline uint4 load_matrices(const uint address) {
    uint4 m;
    asm volatile(LOAD_MATRICES " {%0, %1, %2, %3}, [%4];"
                 : "=r"(m.x), "=r"(m.y), "=r"(m.z), "=r"(m.w)
                 : "r"(address)
                 : "memory");
    return m;
}
#if FORMAT == TF32
#define MMA "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#else
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#endif
/* d[0..4) += a (16 rows) b (8 columns). */
#define MMA_8(d, i, a, b0, b1)                                                                     \
    asm volatile(MMA " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"            \
                 : "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])                      \
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1))
#endif

/* What both kernels do: sums0, and sums1 of the 64 rows after those if REPEATS is 2, over `stages`
   stages. COPY_STAGE(place) brings the next stage into a place of local memory and STAGE_PRODUCTS
   multiplies one by STEPs, of its places first_left and first_right as they are in place 0. */
#define DISTANCE (STAGES - 1 - AHEAD)
#define ZERO_SUMS(sums)                                                                            \
    float sums[COLUMNS / 2];                                                                       \
    _Pragma("unroll") for (int i = 0; i < COLUMNS / 2; i++) sums[i] = 0.0f;
#if REPEATS == 2
#define SUMS_START() ZERO_SUMS(sums0) ZERO_SUMS(sums1)
#define SUMS_END()                                                                                 \
    SUMS_DONE(sums0);                                                                              \
    SUMS_DONE(sums1)
#else
#define SUMS_START() ZERO_SUMS(sums0)
#define SUMS_END() SUMS_DONE(sums0)
#endif
#define FIRST_COPIES()                                                                             \
    for (int first = 0; first < DISTANCE; first++) {                                               \
        if (first < stages) {                                                                      \
            COPY_STAGE(first);                                                                     \
        }                                                                                          \
        COPIES_ISSUED();                                                                           \
    }
#if ON_HOPPER
#define PLACE ulong
#define PLACE_STEP (STAGE_BYTES / 16)
#else
#define PLACE uint
#define PLACE_STEP STAGE_BYTES
#endif
#define EACH_STAGE()                                                                               \
    int place = 0, next = DISTANCE;                                                                \
    for (int stage = 0; stage < stages; stage++) {                                                 \
        COPIES_WAIT(DISTANCE - 1);                                                                 \
        STORES_SEEN();                                                                             \
        barrier(CLK_LOCAL_MEM_FENCE);                                                              \
        if (stage + DISTANCE < stages) {                                                           \
            COPY_STAGE(next);                                                                      \
        }                                                                                          \
        COPIES_ISSUED();                                                                           \
        const PLACE left = first_left + place * PLACE_STEP,                                        \
                    right = first_right + place * PLACE_STEP;                                      \
        PRODUCTS_START();                                                                          \
        STAGE_PRODUCTS                                                                             \
        PRODUCTS_ISSUED();                                                                         \
        PRODUCTS_WAIT(AHEAD);                                                                      \
        place = place + 1 == STAGES ? 0 : place + 1;                                               \
        next = next + 1 == STAGES ? 0 : next + 1;                                                  \
    }                                                                                              \
    PRODUCTS_WAIT(0);                                                                              \
    SUMS_END()
