"""Write checkpoints without end and be killed: `python checkpoint_writer.py FOLDER`, with seconds to live on stdin, a life a line.

A life is a fork, so that Python starts once. Prints the last step that it had begun and the last that was done.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from mpitrain.checkpoint import NEEDED, Entry, path_of, prune, write

RUN = Path(sys.argv[1])
VALUES = np.arange(1 << 16, dtype=np.float32)
SETTINGS = {"mpitrain": json.dumps(dict.fromkeys(NEEDED, 1))}


def save(step: int) -> None:
    entries = [
        Entry(f"layer{n}.weight", VALUES.shape, lambda: np.array_split(VALUES + step, 4)) for n in range(4)
    ]
    write(path_of(RUN / "checkpoints", step), entries, SETTINGS)
    prune(RUN / "checkpoints")


step = 1
save(step)
for line in sys.stdin:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        while True:
            step += 1
            os.write(writer, f"{step} ".encode())
            save(step)
            os.write(writer, b"done ")
    os.close(writer)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        words = pipe.read().split()
    begun = max([step, *(int(word) for word in words if word.isdigit())])
    done = begun - (words[-1:] != ["done"]) if words else step
    step = begun
    print(begun, done, flush=True)
