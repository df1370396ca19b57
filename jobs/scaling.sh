#!/bin/bash
# How training speeds up with ranks: a job for each number of nodes, one after the other and each with no more nodes than it computes on,
# and a last job, which draws runs/scaling-TIME/curve.png of them. Run this where sbatch is, with mpitrain and its [plots] on PATH (or SETUP):
#     bash jobs/scaling.sh                                    1, 2, 4 and 8 nodes, with a rank each
#     NODES="1 2 4 8 16" bash jobs/scaling.sh --partition=NAME --account=NAME --qos=NAME -- --epochs 1
# Options before -- are sbatch's, for all of these jobs; those behind it are mpitrain's. What the jobs print goes to runs/scaling-TIME.
set -eu
asked=()
for word; do
    shift
    [ "$word" != -- ] || break
    asked+=("$word")
done
export OUT="runs/scaling-$(date +%Y%m%d-%H%M%S)"
mkdir -p runs && mkdir "$OUT"
after=
for nodes in ${NODES:-1 2 4 8}; do
    job=$(sbatch --parsable "${asked[@]}" --nodes="$nodes" $after --output="$OUT/%x-%j.out" "$(dirname "$0")/scaling.sbatch" "$@")
    after=--dependency=afterany:${job%;*}
    echo "job ${job%;*}: $nodes nodes"
done
job=$(sbatch --parsable "${asked[@]}" --nodes=1 --ntasks-per-node=1 --time=5 $after --job-name=curve --output="$OUT/%x-%j.out" <<'END'
#!/bin/bash
. "${SETUP:-/dev/null}"
mpitrain curve "$OUT"
END
)
echo "job ${job%;*}: $OUT/curve.png"
