"""Wrong use ends with 2 and one sentence, on any number of ranks, before anything is computed or
overwritten."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launcher import Ended, Launch
from safetensors.numpy import save_file

WRONG = 2


def refused(launch: Launch, *arguments: object, **more: Any) -> str:
    """The sentence with which a command is refused."""
    ended = launch(*arguments, **more)
    launch.ends_with(ended, WRONG)
    assert ended.out == ""
    return ended.sentence()


@pytest.mark.parametrize("ranks", [0, 2])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lenet", "--lerning-rate", 1), ("--lerning-rate",)),
        (("lenet", "--batch-size", "many"), ("--batch-size", "many", "integer")),
        (("lenet", "--exchange", "foo"), ("--exchange", "foo", "dynamic8", "float16", "float32")),
        (("lenett",), ("lenett", "did you mean lenet?")),
        (("lenet", "--lr", -1), ("--lr -1", "above 0")),
    ],
    ids=["option", "value", "choice", "network", "range"],
)
def test_what_cannot_be_meant(
    launch: Launch, ranks: int, arguments: tuple[object, ...], words: tuple[str, ...]
) -> None:
    said = refused(launch, *arguments, ranks=ranks)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch-size", 0), ("--batch-size 0", "at least 1")),
        (("--steps", -1), ("--steps -1", "at least 0")),
        (("--momentum", 1), ("--momentum 1", "below 1")),
        (("--precision", "bf16"), ("--precision bf16", "float32")),
        (("--data", "/no/such/place"), ("/no/such/place", "no such path")),
        (("--device", "nvidia:9"), ("--device nvidia:9", "found: ")),
        (("--device", "cpu:x"), ("--device cpu:x", "number")),
        (("--checkpoint-every", "often"), ("--checkpoint-every often", "2ep")),
        (("--augment", "twirl"), ("twirl", "crop")),
        (("--mean", "a"), ("--mean a", "numbers")),
        (("--batch-size", 5000), ("5000", "1437")),
        (("--classes", 3), ("3",)),
        (("--resume",), ("--resume", "--out")),
        (("--resume", "/no/such/file"), ("/no/such/file", "no such file")),
        (("--init", "/no/such/file"), ("/no/such/file", "no such file")),
        (("--inject", "rank=one,kind=raise"), ("--inject", "rank=")),
        (("--out", "/dev/null/run"), ("--out /dev/null/run", "Not a directory")),
    ],
    ids=lambda value: value[0].strip("-") if str(value[0]).startswith("--") else "",
)
def test_what_cannot_be_done(
    launch: Launch, tmp_path: Path, arguments: tuple[object, ...], words: tuple[str, ...]
) -> None:
    out = None if {"--out", "--resume"} & set(arguments) else tmp_path / "run"
    said = refused(launch, "lenet", "--steps", 1, *arguments, out=out)
    assert all(word in said for word in words), said
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_more_ranks_than_images_of_a_batch(launch: Launch, tmp_path: Path) -> None:
    said = refused(launch, "lenet", "--batch-size", 2, ranks=3, out=tmp_path / "run")
    assert "--batch-size 2" in said
    assert "3 ranks" in said


def test_a_device_that_only_one_rank_lacks_is_named_with_the_rank(
    launch: Launch, tmp_path: Path
) -> None:
    devices = [["--device", "cpu"], ["--device", "nvidia:9"]]
    said = refused(launch, "lenet", "--out", tmp_path / "run", each=devices)
    assert "rank 1: --device nvidia:9" in said


@pytest.mark.parametrize("network", ["lenet", "vgg16", "resnet18"])
def test_images_too_small_for_the_network(launch: Launch, tmp_path: Path, network: str) -> None:
    data = tmp_path / "tiny.npz"
    np.savez(data, images=np.zeros((20, 1, 8, 8), np.uint8), labels=np.arange(20) % 10)
    arguments = (network, "--data", data, "--batch-size", 10, "--steps", 0)
    if network == "resnet18":  # its strides and paddings leave something of any image
        launch.trains(*arguments, out=tmp_path / "run")
        return
    said = refused(launch, *arguments, out=tmp_path / "run")
    assert network in said
    assert "8" in said


def test_a_truncated_idx_file(launch: Launch, tmp_path: Path) -> None:
    images = struct.pack(">HBBIII", 0, 8, 3, 100, 28, 28) + bytes(50 * 28 * 28)
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(images)
    with gzip.open(tmp_path / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(struct.pack(">HBBI", 0, 8, 1, 100) + bytes(100))
    said = refused(launch, "lenet", "--data", tmp_path, out=tmp_path / "run")
    assert "train-images-idx3-ubyte.gz" in said


def test_a_network_file_with_an_error(launch: Launch, tmp_path: Path, small_network: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(small_network.read_text().replace("kernel = 3", "kernal = 3"))
    said = refused(launch, path, "--data", "digits", out=tmp_path / "run", ranks=2)
    assert f"{path}: layer conv: unknown key kernal; did you mean kernel?" in said


def test_a_run_directory_with_a_run_in_it_stays_as_it_is(launch: Launch, short_run: Ended) -> None:
    assert short_run.folder is not None
    before = contents(short_run.folder)
    said = refused(launch, "lenet", "--steps", 1, out=short_run.folder, ranks=2)
    assert f"--out {short_run.folder}" in said
    assert "--resume" in said
    assert contents(short_run.folder) == before


def test_resume_where_a_checkpoint_is_gone(launch: Launch, tmp_path: Path) -> None:
    """To begin anew would hide that a run is lost."""
    launch.trains("lenet", "--steps", 1, out=tmp_path / "run")
    for path in checkpoints(tmp_path / "run"):
        path.unlink()
    said = refused(launch, "lenet", "--steps", 2, "--resume", out=tmp_path / "run", ranks=2)
    assert "tells of checkpoints" in said
    assert f"no checkpoint in {tmp_path / 'run'}" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("vgg11", "--data", "synthetic:64", "--batch-size", 64),
            ("lenet", "features.0.weight", "vgg11"),
        ),
        (("lenet", "--classes", 12), ("(10, 500)", "(12, 500)")),
        (("lenet", "--seed", 1), ("seed 0", "1")),
        (("lenet", "--batch-size", 32), ("batch_size 64", "32")),
    ],
    ids=["network", "classes", "seed", "batch"],
)
def test_resume_of_another_run(
    launch: Launch, short_run: Ended, arguments: tuple[object, ...], words: tuple[str, ...]
) -> None:
    assert short_run.folder is not None
    before = contents(short_run.folder)
    said = refused(launch, *arguments, "--resume", out=short_run.folder)
    assert all(word in said for word in ("--resume", *words)), said
    assert contents(short_run.folder) == before


def test_resume_into_the_run_directory_of_another_run(
    launch: Launch, short_run: Ended, digits_run: Ended
) -> None:
    assert short_run.folder is not None
    assert digits_run.folder is not None
    before = contents(digits_run.folder)
    saved = checkpoints(short_run.folder)[-1]
    said = refused(launch, "lenet", "--steps", 6, "--resume", saved, out=digits_run.folder)
    assert f"--out {digits_run.folder}" in said
    assert contents(digits_run.folder) == before


def test_init_with_nothing_in_common(launch: Launch, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"something": np.zeros((3, 3), np.float32)}, path)
    said = refused(launch, "lenet", "--init", path, out=tmp_path / "run", ranks=2)
    assert f"--init {path}" in said
    assert "lenet" in said


@pytest.mark.parametrize("cut", [0, 100, 1000])
def test_a_cut_checkpoint_is_no_checkpoint(
    launch: Launch, short_run: Ended, tmp_path: Path, cut: int
) -> None:
    assert short_run.folder is not None
    path = tmp_path / "cut.safetensors"
    path.write_bytes(checkpoints(short_run.folder)[-1].read_bytes()[:cut])
    for arguments in (("evaluate", path), ("predict", path, path), ("lenet", "--resume", path)):
        assert str(path) in refused(
            launch, *arguments, out=tmp_path / "run" if "lenet" in arguments else None
        )


def test_weights_of_others_are_no_checkpoint(launch: Launch, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"conv1.weight": np.zeros((20, 1, 5, 5), np.float32)}, path)
    for arguments in (("evaluate", path), ("lenet", "--out", tmp_path / "run", "--resume", path)):
        said = refused(launch, *arguments)
        assert str(path) in said
        assert "no settings" in said


def test_evaluation_on_other_images(launch: Launch, short_run: Ended, small_data: Path) -> None:
    assert short_run.folder is not None
    said = refused(
        launch, "evaluate", checkpoints(short_run.folder)[-1], "--data", small_data, ranks=2
    )
    assert str(small_data) in said
    assert "12" in said
    assert "28" in said


def test_prediction_of_what_is_no_image(launch: Launch, short_run: Ended, tmp_path: Path) -> None:
    assert short_run.folder is not None
    (tmp_path / "letter.png").write_text("not an image")
    said = refused(launch, "predict", checkpoints(short_run.folder)[-1], tmp_path / "letter.png")
    assert "letter.png" in said


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").iterdir())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_launcher_of_another_mpi_is_refused_in_one_sentence(
    launch: Launch, tmp_path: Path
) -> None:
    """As if the other MPI's mpirun had started two ranks: it tells them so by variables."""
    other = "OMPI_COMM_WORLD" if launch.exact else "PMI"
    started = {f"{other}_SIZE": "2", f"{other}_RANK": "0", "PYTHONWARNINGS": "ignore"}
    said = refused(launch, "lenet", "--steps", 1, out=tmp_path / "run", env=started)
    assert "launcher and library are not of one MPI; the library is " in said
    assert not (tmp_path / "run").exists()
