"""Headers of a tar; test_tars.py has broken ones."""

import io
import tarfile

import pytest

from mpitrain.data.tar import members


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_are_found_with_their_names_and_places_and_other_members_are_not(tmp_path, form):
    file = tmp_path / "x.tar"
    contents = {"a.png": b"12345", "empty": b"", "d" * 60 + "/" + "x" * 90: b"7" * 513}
    if form != tarfile.USTAR_FORMAT:
        contents["ä" * 200] = b"long"
    with tarfile.open(file, "w", format=form) as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            other = tarfile.TarInfo("other")
            other.type, other.linkname = kind, "/etc/passwd"
            tar.addfile(other)
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    whole = file.read_bytes()
    with file.open("rb") as opened:
        found = {each.name: whole[each.start :][: each.size] for each in members(file, opened)}
    assert found == contents
