"""What --data names."""

import numpy as np
import pytest
from PIL import Image

from mpitrain.data.source import open_source
from mpitrain.job.errors import UserError


def opened(spec, **options):
    return open_source(str(spec), shape_hint=options.pop("shape_hint", (3, 8, 8)), **options)


def test_words_come_before_paths_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits" / "a").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "digits" / "a" / "1.png")
    assert opened("digits").classes == 10
    assert opened("./digits").classes == 1
    assert opened("synthetic", shape_hint=(2, 5, 6)).shape == (2, 5, 6)
    assert opened("synthetic:64", classes=4).classes == 4
    assert opened("synthetic").classes == 1000


def test_each_format_is_known_by_its_files(tmp_path):
    for name in ("idx", "ten", "hundred", "classes/a"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "idx" / "train-images-idx3-ubyte").write_bytes(
        bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 7, 9])
    )
    (tmp_path / "idx" / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 4]))
    for number in range(1, 6):
        (tmp_path / "ten" / f"data_batch_{number}.bin").write_bytes(bytes(3073))
    (tmp_path / "hundred" / "train.bin").write_bytes(bytes(3074))
    Image.new("RGB", (4, 4)).save(tmp_path / "classes" / "a" / "1.png")
    np.savez(
        tmp_path / "set.npz", images=np.zeros((2, 4, 3, 3), np.float32), labels=np.array([0, 1])
    )
    shapes = {
        name: opened(tmp_path / name).shape
        for name in ("idx", "ten", "hundred", "classes", "set.npz")
    }
    assert list(shapes.values()) == [(1, 2, 1), (3, 32, 32), (3, 32, 32), (3, 8, 8), (4, 3, 3)]
    assert [opened(tmp_path / name).classes for name in shapes] == [5, 10, 100, 1, 2]


@pytest.mark.parametrize(
    "spec", ["", "nowhere", "no/where", "a\0b", "x" * 5000, "synthetics", "digits:3"]
)
def test_what_is_no_source_is_one_clear_sentence(spec):
    with pytest.raises(UserError, match=r"no such path|File name too long"):
        opened(spec)


def test_folders_and_files_of_no_known_form_are_errors(tmp_path):
    with pytest.raises(
        UserError,
        match=r"expected IDX files .*, CIFAR .*, shards .* or class folders .*, found none of them",
    ):
        opened(tmp_path)
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(UserError, match=r"a\.csv: expected an \.npz file, a \.tar or a folder"):
        opened(tmp_path / "a.csv")
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.npz: .*expected an \.npz archive"):
        opened(tmp_path / "empty.npz")
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(UserError, match=r"a\.npz: expected IDX"):
        opened(tmp_path / "a.npz")


def test_classes_and_seeds_out_of_range_are_errors():
    for classes in (0, -1, 1 << 40):
        with pytest.raises(UserError, match=f"{classes} classes; expected 1 to 1048576"):
            opened("digits", classes=classes)
    with pytest.raises(UserError, match=r"image . has the label .; expected 0 to 2"):
        opened("digits", classes=3)
    with pytest.raises(UserError, match="the seed is -1; expected 0 or more"):
        opened("digits", seed=-1)


def test_only_an_npz_has_a_layout_to_name():
    with pytest.raises(UserError, match=r"--layout nhwc: only an .npz .* got digits"):
        open_source("digits", shape_hint=(1, 28, 28), layout="nhwc")
