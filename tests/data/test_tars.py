"""WebDataset shards, whole and broken."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from mpitrain.data.bad import Bad
from mpitrain.data.source import open_source
from mpitrain.job.errors import RunError, UserError

SHAPE = (3, 8, 10)


def encoded(shade, form="png"):
    there = io.BytesIO()
    Image.new("RGB", (10, 8), (shade, 0, 0)).save(there, form)
    return there.getvalue()


def shard(file, members, form=tarfile.GNU_FORMAT):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=form) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def sample(key, shade, label, form="png"):
    return [(f"{key}.{form}", encoded(shade, form)), (f"{key}.cls", str(label).encode())]


def opened(spec, most=0, **more):
    return open_source(str(spec), shape_hint=more.pop("shape", SHAPE), bad=Bad(most), **more)


def shades(split):
    images, labels = split.read(np.arange(len(split)))
    return images[:, 0, 4, 4].tolist(), labels.tolist()


def three(folder, name="shard-{:04d}.tar"):
    for number in range(3):
        members = [each for k in (0, 1) for each in sample(f"{k}", 10 * number + k, number)]
        shard(folder / name.format(number), members)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_of_all_forms_of_tar(tmp_path, form):
    long = "folder/" * 12 + "x" * 90 if form != tarfile.USTAR_FORMAT else "folder/" * 10 + "x" * 90
    members = [
        *sample("a/0001", 7, 3),
        ("a/0002.json", b"{}"),
        *sample(long, 9, 12),
        *sample("a/0003.seg", 11, 2)[:1],
        *sample("ä/0003", 200, 0, "jpeg"),
    ]
    data = opened(shard(tmp_path / "x.tar", members, form))
    found, labels = shades(data.train)
    assert found[:2] == [7, 9] and abs(found[2] - 200) < 4 and labels == [3, 12, 0]
    assert (data.shape, data.classes, data.test) == (SHAPE, 13, None)
    np.testing.assert_allclose(data.mean, [0.485, 0.456, 0.406])


def test_a_pattern_a_folder_and_a_list_of_words_name_the_same_shards(tmp_path):
    three(tmp_path)
    want = [0, 1, 10, 11, 20, 21], [0, 0, 1, 1, 2, 2]
    for spec in ("", "shard-{0000..0002}.tar", "{shard-0000,shard-000{1..2}}.tar"):
        assert shades(opened(tmp_path / spec).train) == want
    assert opened(tmp_path / "shard-0001.tar").classes == 2


def test_names_and_folders_say_which_shards_are_there_to_test_with(tmp_path):
    three(tmp_path / "a", "set-train-{:04d}.tar")
    for word, shade in (("validation", 90), ("test", 95)):
        shard(tmp_path / "a" / f"set-{word}-0.tar", sample("v", shade, 1))
    data = opened(tmp_path / "a")
    assert len(data.train) == 6 and shades(data.test) == ([90], [1])
    three(tmp_path / "b" / "train")
    shard(tmp_path / "b" / "test" / "0.tar", sample("v", 95, 1))
    data = opened(tmp_path / "b")
    assert len(data.train) == 6 and shades(data.test) == ([95], [1])


def test_any_order_and_repetition_of_numbers_can_be_read(tmp_path):
    three(tmp_path)
    images, labels = opened(tmp_path).train.read(np.array([5, 0, 5, 2]))
    assert images[:, 0, 0, 0].tolist() == [21, 0, 21, 10] and labels.tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "no samples"),
        ([("a.txt", b"x"), (".png", b"x")], "no samples"),
        (sample("a", 1, 0)[:1], "sample /a has 1 images and no class"),
        (sample("a", 1, 0)[1:], "sample /a has 0 images and a class"),
        ([*sample("a", 1, 0), ("a.jpg", encoded(1))], "has 2 images and a class"),
        (sample("a", 1, "cat"), "a.cls is b'cat'; expected a number"),
        (sample("a", 1, -1), "a.cls is b'-1'; expected a number"),
        (sample("a", 1, "9" * 40), "expected a number"),
        (sample("a", 1, 1 << 40), "has the label 1099511627776; expected 0 to"),
    ],
)
def test_samples_that_lack_something_are_sentences(tmp_path, members, message):
    file = shard(tmp_path / "x.tar", members)
    with pytest.raises(UserError, match=rf"x\.tar.*{message}"):
        opened(file)


def test_bad_samples_are_left_out_and_named(tmp_path):
    members = [
        *sample("a", 1, 0),
        *sample("b", 2, "cat"),
        *sample("c", 3, 0)[:1],
        ("d.png", b"no image"),
        ("d.cls", b"0"),
    ]
    file = shard(tmp_path / "x.tar", members)
    data = opened(file, 3)
    assert shades(data.train) == ([1], [0])
    assert data.bad.names == ["x.tar, b.cls", "x.tar, /c", "d.png"]
    with pytest.raises(UserError, match="--skip-bad 2 has left out 2"):
        opened(file, 2)
    shard(file, [*sample("a", 1, 0), ("d.png", b"no image"), ("d.cls", b"0")])
    data = open_source(str(file), shape_hint=SHAPE)
    with pytest.raises(RunError, match=r"x\.tar: d\.png: cannot be decoded"):
        data.train.read(np.arange(2))


def test_a_cut_or_damaged_shard_is_a_sentence_and_never_fewer_images(tmp_path):
    file = shard(tmp_path / "x.tar", [*sample("a", 1, 0), *sample("b", 2, 1)])
    good = file.read_bytes()
    end = len(good.rstrip(b"\0"))
    for length in [*range(0, end, 97), 512, 1024, end]:
        file.write_bytes(good[:length])
        with pytest.raises(UserError, match=r"x\.tar"):
            opened(file)
    for place in range(0, 512, 7):
        for header in (0, 1024):
            damaged = bytearray(good)
            damaged[header + place] ^= 0x21
            file.write_bytes(damaged)
            with pytest.raises(UserError, match=r"x\.tar: (no tar|damaged at byte 1024)"):
                opened(file)
    file.write_bytes(good + good)
    with pytest.raises(UserError, match="goes on after its end"):
        opened(file)


def test_sizes_and_names_that_lie_are_sentences(tmp_path):
    def spoil(field, content, file=tmp_path / "x.tar"):
        shard(file, sample("a", 1, 0))
        data = bytearray(file.read_bytes())
        data[field : field + len(content)] = content
        total = sum(data[:148]) + sum(data[156:512]) + 256
        data[148:156] = b"%06o\0 " % total
        file.write_bytes(data)
        return file

    for size in (b"77777777777\0", b"\x80" + b"\0" * 3 + b"\xff" * 8, b"\xff" * 12):
        with pytest.raises(UserError, match=r"x\.tar: .*(cut short|no number)"):
            opened(spoil(124, size))
    with pytest.raises(UserError, match="a header that is no header of pax"):
        opened(spoil(156, b"x"))
    outside = spoil(0, b"../../etc/a.png\0")
    with pytest.raises(UserError, match="no class"):
        opened(outside)


def test_packed_missing_and_too_many_shards_are_sentences(tmp_path):
    three(tmp_path)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "shard-0000.tar")
    with pytest.raises(UserError, match=r"a packed tar, .*; unpack it"):
        opened(tmp_path / "x.tar.gz")
    with pytest.raises(UserError, match=r"shard-0003\.tar: there is no such file \(of .*\)"):
        opened(tmp_path / "shard-{0000..0003}.tar")
    with pytest.raises(UserError, match="more than 65536 files"):
        opened(tmp_path / "shard-{0..999999999}{0..9}.tar")
    with pytest.raises(UserError, match="expected a pattern"):
        opened(tmp_path / "shard-{0.tar")
    with pytest.raises(UserError, match="no such path"):
        opened(tmp_path / "shard-9.tar")
    with pytest.raises(UserError, match="1 or 3 channels"):
        opened(tmp_path, shape=(2, 8, 8))
