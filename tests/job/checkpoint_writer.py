"""Write checkpoints without end and be killed: `python checkpoint_writer.py FOLDER`, with seconds
to live on stdin, a life a line.

A life is a fork, so that Python starts once. A life goes on from the newest whole checkpoint;
prints the last step that it had begun and the last that was done.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from mpitrain.job.checkpoint import NEEDED, NEEDED_OF_RUN, Entry, newest, path_of, prune, write

RUN = Path(sys.argv[1])
VALUES = np.arange(1 << 16, dtype=np.float32)
FOUND = {name: kind() for name, kind in NEEDED.items()}
FOUND |= {"mean": [0.5], "std": [0.25], "ranks": 1, "images": 1}
FOUND["run"] = {name: kind() for name, kind in NEEDED_OF_RUN.items()}
SETTINGS = {"mpitrain": json.dumps(FOUND)}


def save(step: int) -> None:
    entries = [
        Entry(f"layer{n}.weight", VALUES.shape, lambda: np.array_split(VALUES + step, 4))
        for n in range(4)
    ]
    write(path_of(RUN / "checkpoints", step), entries, SETTINGS)
    prune(RUN / "checkpoints")


save(1)
for line in sys.stdin:
    found = newest(RUN)
    step = int(found.path.stem.removeprefix("step-")) if found else 0  # as a run that goes on
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        while True:
            step += 1
            os.write(writer, b"begun ")
            save(step)
            os.write(writer, b"done ")
    os.close(writer)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        words = pipe.read().split()
    print(step + words.count("begun"), step + words.count("done"), flush=True)
