"""PTX goes to the driver a second time with the instructions that its OpenCL compiler had to be
kept from reading."""

from __future__ import annotations

import pytest

from mpitrain.runtime import nvidia
from mpitrain.runtime.program import read_source

PTX = """.version 9.0
.target sm_90, texmode_independent
.entry correlate(
	.param .u64 .ptr .global .align 4 correlate_param_0
)
.reqntid 128, 1, 1
{
	.shared .align 16 .b8 correlate_$_tiles[32768];
	// begin inline asm
	//@local 98304
	// end inline asm
	//@resident 2
	//@@ wgmma.fence.sync.aligned;
	ret;
}
"""


def test_marked_instructions_come_to_life_for_the_chips_own_target() -> None:
    lines = nvidia.retarget(PTX).splitlines()
    assert ".target sm_90a, texmode_independent" in lines
    assert "\twgmma.fence.sync.aligned;" in lines
    assert "\t.shared .align 1024 .b8 correlate_$_tiles[98304];" in lines
    assert lines[lines.index(".reqntid 128, 1, 1") + 1] == ".minnctapersm 2"


def test_without_marked_instructions_the_target_stays() -> None:
    plain = PTX.replace("//@@ wgmma.fence.sync.aligned;", "").replace("sm_90", "sm_80")
    assert ".target sm_80, texmode_independent" in nvidia.retarget(plain).splitlines()
    assert "[98304]" in nvidia.retarget(plain)


@pytest.mark.parametrize("size", [nvidia.LARGEST_LOCAL + 1, 1 << 20])
def test_more_local_memory_than_a_unit_has_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        nvidia.retarget(PTX.replace("98304", str(size)))


def test_a_missing_array_is_an_error() -> None:
    with pytest.raises(ValueError, match="32 KiB"):
        nvidia.retarget(PTX.replace("[32768]", "[16]"))


def test_buffers_become_numbers_and_numbers_stay() -> None:
    local = (
        "\t.param .u64 .ptr .shared .align 4 correlate_param_1,\n\t.param .u32 correlate_param_2"
    )
    ptx = PTX.replace("correlate_param_0", f"correlate_param_0,\n{local}")
    assert nvidia.by_address(ptx) == ptx.replace(" .ptr .global .align 4", "")


def test_kernels_of_this_chip_alone_are_known_by_their_marks() -> None:
    assert nvidia.is_marked(read_source("tensor", ("nvidia", "gpu")))
    assert not nvidia.is_marked(read_source("relu", ("gpu",)))
