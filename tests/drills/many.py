"""Train one small network with every exchange and update in one MPI job, twice each: `mpirun -n N
python many.py NETWORK DATA OUT`.

The second time messages are slowed down, so that ranks and messages come in other orders. Rank 0
prints one JSON object a training.
"""

import itertools
import json
import sys

import mpitrain

network, data, out = sys.argv[1:]
for exchange, update in itertools.product(
    ("dynamic8", "float16", "float32"), ("root", "replicated")
):
    for inject in ("", "delay=0.003"):
        run = mpitrain.Run(
            network,
            data=data,
            steps=6,
            exchange=exchange,
            update=update,
            inject=inject,
            quiet=True,
            out=f"{out}/{exchange}-{update}-{inject or 'plain'}",
            checkpoint_every="3",
            evaluate_every="6",
        )
        result = mpitrain.train(run)
        found = {"exchange": exchange, "update": update, "inject": inject, "top1": result.top1}
        if mpitrain.__dict__["train"].__globals__["connect"]().ranks.rank == 0:
            print(json.dumps({**found, "hashes": result.weights_sha256}), flush=True)
