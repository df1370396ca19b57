"""mpitrain without its command line: what README and CLI.md promise to those who import it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from launcher import Ended, Launch

IMPORT = """
import sys, mpitrain
HEAVY = ("mpi4py", "pyopencl", "numpy", "click", "rich")
heavy = [name for name in sys.modules if name.split(".")[0] in HEAVY]
assert not heavy, heavy
from mpitrain import Result
assert callable(mpitrain.train), mpitrain.train
"""
TRAIN = """
import json, signal, sys, threading
import numpy as np
import mpitrain
from mpitrain.job.errors import UserError

out = sys.argv[1]
before = signal.getsignal(signal.SIGTERM)
def train(n):
    return mpitrain.train(mpitrain.Run("lenet", steps=3, out=f"{out}/{n}", quiet=True))


results = [train(n) for n in range(2)]
assert signal.getsignal(signal.SIGTERM) is before, "train keeps the process from being ended"
in_a_thread = threading.Thread(
    target=lambda: results.append(train(2))
)
in_a_thread.start()
in_a_thread.join()
assert len({each.weights_sha256 for each in results}) == 1 and len(results) == 3
assert (results[0].exit_code, results[0].step) == (0, 3) and results[0].top1 > 0.1
try:
    mpitrain.train(mpitrain.Run("lenet", steps=3, out=f"{out}/0"))
except UserError as error:
    assert "--resume" in str(error)
else:
    raise AssertionError("a run was written over")
model = mpitrain.load(results[0].folder / "checkpoints" / "step-00000003.safetensors")
images = np.random.default_rng(0).integers(0, 256, (70, 1, 28, 28), np.uint8)
found = model.predict(images)
assert found.shape == (70, 10) and found.dtype == np.float32
assert np.allclose(found.sum(1), 1, atol=1e-5)
assert np.array_equal(found[:5], model.predict(images[:5]))
assert model.predict(images[:0]).shape == (0, 10)
try:
    model.predict(images[:, :, 1:])
except UserError as error:
    assert "(70, 1, 27, 28)" in str(error)
else:
    raise AssertionError("images of another size were taken")
for wrong, words in ((images.astype(float), "float64"), (images.tolist(), "int64")):
    try:
        model.predict(wrong)
    except UserError as error:
        assert words in str(error)
    else:
        raise AssertionError(f"{words} was taken")
for network in ("lenett", "n" * 300):
    try:
        mpitrain.train(mpitrain.Run(network))
    except UserError as error:
        assert "unknown network" in str(error) and len(str(error)) < 400
    else:
        raise AssertionError("there is such a network")
print(json.dumps(found[0].tolist()))
"""


def test_the_import_starts_neither_mpi_nor_opencl(launch: Launch) -> None:
    ended = launch(program=[sys.executable, "-W", "error", "-c", IMPORT])
    assert ended.code == 0, ended.err


def test_train_load_and_predict_in_one_process(launch: Launch, tmp_path: Path) -> None:
    ended = launch(tmp_path, program=[sys.executable, "-c", TRAIN])
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert len(json.loads(ended.out)) == 10


def test_python_m_is_the_command(launch: Launch) -> None:
    ended = launch("--version", program=[sys.executable, "-m", "mpitrain"])
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("mpitrain, version ")


def test_a_checkpoint_is_a_safetensors_file_of_named_tensors(digits_run: Ended) -> None:
    from safetensors import safe_open

    assert digits_run.folder is not None
    *_, newest = sorted((digits_run.folder / "checkpoints").iterdir())
    with safe_open(newest, framework="numpy") as file:
        names = set(file.keys())
        settings = json.loads(file.metadata()["mpitrain"])
    weights = {name for name in names if not name.startswith(("momentum/", "state/"))}
    assert len(weights) == 8
    assert {f"momentum/{name}" for name in weights} <= names
    assert settings["run"]["network"] == "lenet"
    assert settings["step"] == digits_run.end["step"]
