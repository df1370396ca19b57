"""Run what an installed mpitrain offers, far from any checkout: `.ci/run` calls it for the wheel in
an environment that has nothing else.

    python tests/installed.py ENVIRONMENT
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHERE = "import mpitrain, mpitrain.kernels as k; print(mpitrain.__file__, *k.__path__)"
PICTURE = """import numpy as np
from PIL import Image
from mpitrain.data.digits import DIGITS
with np.load(DIGITS) as digits:
    Image.fromarray(digits["test_images"][0, 0]).save("digit.png")
"""


def main(environment: Path) -> None:
    """Run each command, and fail where one does."""
    environment = environment.resolve()
    words = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    words["PATH"] = f"{environment / 'bin'}:/usr/bin:/bin"
    with tempfile.TemporaryDirectory() as folder:

        def run(*command: str) -> str:
            print(f"$ {' '.join(command).partition(chr(10))[0]}", flush=True)
            done = subprocess.run(
                command, cwd=folder, env=words, stdout=subprocess.PIPE, text=True, check=True
            )
            return done.stdout

        places = [Path(place) for place in run("python", "-c", WHERE).split()]
        assert all(place.is_relative_to(environment) for place in places), places
        scripts = environment / "share/mpitrain/jobs"
        assert {path.name for path in scripts.iterdir()} == {
            path.name for path in (ROOT / "jobs").iterdir() if path.is_file()
        }

        assert "rank 0" in run("mpitrain", "devices", "--ranks", "2")
        assert "11,689,512 parameters" in run("mpitrain", "summary", "resnet18")
        run("mpirun", "-n", "2", "mpitrain", "lenet", "--steps", "22", "--out", "run")
        *_, end = (Path(folder) / "run/log.jsonl").read_text().splitlines()
        hashes = json.loads(end)["weights_sha256"]
        assert len(hashes) == 2 and len(set(hashes)) == 1, hashes
        run("python", "-c", PICTURE)
        best = run("mpitrain", "predict", "run", "digit.png", "--top", "1")
        assert "digit.png" in best, best
        print(best, end="")
        run("mpitrain", "report", "run")
        assert (Path(folder) / "run/report.html").exists()
        page(folder, words)


def page(folder: str, environment: Mapping[str, str]) -> None:
    """The demo's page is there until Ctrl-C."""
    command = ["mpitrain", "demo", "run", "--port", "0", "--no-browser"]
    print(f"$ {' '.join(command)}", flush=True)
    server = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split(" is at ")[1].split()[0]
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"<canvas" in answer.read()
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
