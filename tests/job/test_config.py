"""Settings: wrong ones are refused by name, and what is left out is filled in."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from mpitrain.job.config import Run, interval, is_made_up, numbers, option, whole
from mpitrain.job.errors import UserError


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 0, "--batch-size 0: must be at least 1"),
        ("steps", -1, "--steps -1: must be at least 0"),
        ("lr", 0.0, "--lr 0.0: must be above 0.0"),
        ("lr", float("nan"), "--lr nan: must be above"),
        ("momentum", 1.0, "--momentum 1.0: must be below 1.0"),
        *(
            ("dense", wrong, f"--dense {wrong}: expected auto, whole, split, or split: and from")
            for wrong in ("half", "split:", "split:0", "split:few", "whole:3", "")
        ),
        (
            "checkpoint_every",
            "soon",
            r"--checkpoint-every soon: expected steps \(100\) or epochs \(2ep\)",
        ),
        ("evaluate_every", "0", "--evaluate-every 0: expected steps"),
        ("stall_seconds", 0.0, "--stall-seconds 0.0: must be above"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Run("lenet", **{name: value})


NAN = float("nan")
LIMITS: dict[str, tuple[list[Any], list[Any]]] = {
    "batch_size": ([0, -1], [1]),
    "sub_batch": ([0], [1]),
    "epochs": ([-1], [0]),
    "compute_seconds": ([-0.1, math.inf, NAN], [0.0, 0.37]),
    "steps": ([-1], [0]),
    "lr": ([0.0, -0.1, NAN], [1e-9]),
    "patience": ([0, -1], [1]),
    "trace": ([0, -1], [1]),
    "keep": (["", "0", "best", "best,0", "3,best", "-1"], ["1", "best,3"]),
    "ema": ([0.0, 1.0, -0.1, NAN], [1e-9, 0.9999]),
    "clip_norm": ([0.0, -1.0, NAN, math.inf], [1e-9, 5.0]),
    "momentum": ([-0.1, 1.0, NAN], [0.0, 0.99]),
    "weight_decay": ([-1e-9, NAN], [0.0]),
    "schedule": (
        [
            "",
            "fast",
            "cosine:2",
            "constant:",
            "step:",
            "step:0",
            "step:1,x",
            "polynomial:",
            "polynomial:0",
            "polynomial:nan",
            "polynomial:inf",
            "polynomial:-1",
        ],
        ["constant", "step", "step:30ep,60ep", "cosine", "linear", "polynomial", "polynomial:0.5"],
    ),
    "layout": (["hwc"], ["nchw", "nhwc"]),
    "warmup": (["-1", "", "ep", "1.5"], ["0", "0ep", "7", "2ep"]),
    "update": (["sharded"], ["root", "replicated"]),
    "precision": (["float16"], ["float32", "high", "tf32", "bf16"]),
    "balance": (["fast"], ["equal", "speed"]),
    "on_failure": (["go on", ""], ["stop", "continue"]),
    "classes": ([0], [1]),
    "resize": ([0], [1]),
    "label_smoothing": ([-0.1, 1.0, NAN], [0.0, 0.1]),
    "mixup": ([-0.1, math.inf, NAN], [0.0, 0.2]),
    "activations": (["float16", ""], ["float32"]),
    "read": (["disk", ""], ["auto", "root", "local"]),
    "decoders": ([0], [1]),
    "seed": ([-1], [0]),
    "skip_bad": ([-1], [0, 3]),
    "stall_seconds": ([0.0, -1.0, NAN], [0.1]),
    "checkpoint_every": (["", "0", "0ep", "-1", "1.5", "ep", "2 ep"], ["1", "3ep"]),
    "evaluate_every": (["", "0", "0ep", "soon"], ["1", "3ep"]),
}
"""For every setting that has limits: values outside, and values at their edge inside."""


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_holds(name: str) -> None:
    outside, inside = LIMITS[name]
    for value in outside:
        with pytest.raises(UserError, match=re.escape(f"{option(name)} {value}: ")):
            Run("lenet", **{name: value})
    for value in inside:
        assert getattr(Run("lenet", **{name: value}), name) == value


def test_every_setting_has_a_sentence_and_every_number_and_choice_its_limits() -> None:
    for field in fields(Run)[1:]:
        assert field.metadata["help"].partition(" [default")[0].endswith("."), field.name
        kinds = str(field.type).split(" | ")
        if "int" in kinds or "float" in kinds or "choices" in field.metadata:
            assert field.name in LIMITS, f"{field.name} is not tested"


def test_the_network_fills_in_what_is_left_out_and_nothing_else() -> None:
    defaults = {"batch_size": 64, "data": "digits", "weight_decay": 5e-4}
    run = Run("lenet", weight_decay=0.0).completed(defaults)
    assert (run.batch_size, run.data, run.weight_decay, run.epochs, run.steps) == (
        64,
        "digits",
        0.0,
        10,
        None,
    )
    run = Run("net.toml", steps=7).completed({})
    assert (run.batch_size, run.data, run.epochs, run.steps) == (256, "synthetic", None, 7)
    assert Run("net.toml").completed({}).steps == 10


def test_intervals_are_steps_or_epochs() -> None:
    assert interval("100", 22, "--x") == 100
    assert interval("2ep", 22, "--x") == 44
    with pytest.raises(UserError, match="--x ²: expected steps"):
        interval("²", 22, "--x")


def test_numbers_are_one_for_all_or_one_each() -> None:
    assert numbers("0.5", 3, "--mean") == [0.5, 0.5, 0.5]
    assert numbers("0.1,0.2,0.3", 3, "--mean") == [0.1, 0.2, 0.3]
    with pytest.raises(UserError, match="--mean 1,2: 2 numbers for 3 channels"):
        numbers("1,2", 3, "--mean")
    with pytest.raises(UserError, match="--std x: expected numbers"):
        numbers("x", 3, "--std")
    with pytest.raises(UserError, match="--std 1,0,1: 0 is not above 0"):
        numbers("1,0,1", 3, "--std", above=0.0)
    with pytest.raises(UserError, match="--mean nan: nan is not finite"):
        numbers("nan", 3, "--mean")


@pytest.mark.parametrize("text", ["", "²", "٣", "-1", "+1", "1_0", " 1", "9" * 19, "9" * 5000])
def test_only_plain_digits_are_a_number(text: str) -> None:
    assert whole(text) is None


def test_a_path_that_begins_like_made_up_data_is_a_path() -> None:
    assert is_made_up("synthetic") and is_made_up("synthetic:99")
    assert not is_made_up("synthetic_mnist.npz") and not is_made_up("./synthetic")
    assert Run("net.toml", data="synthetic_mnist.npz").completed({}).epochs == 10


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", "0.1", "--lr '0.1': expected a number, got str"),
        ("steps", 1.5, "--steps 1.5: expected a whole number, got float"),
        ("steps", True, "--steps True: expected a whole number, got bool"),
        ("quiet", 1, "--quiet 1: expected True or False, got int"),
        ("out", 3, "--out 3: expected a string, got int"),
        ("network", None, "--network None: expected a string, got NoneType"),
        ("seed", None, "--seed None: expected a whole number, got NoneType"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Run(**{"network": "lenet", name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    assert Run("lenet", lr=np.float32(0.5), steps=np.int64(3)).steps == 3


def test_whole_numbers_are_steps() -> None:
    run = Run("lenet", warmup=5, checkpoint_every=np.int64(100))
    assert (run.warmup, run.checkpoint_every) == ("5", "100")
    with pytest.raises(UserError, match="--warmup -1: expected steps"):
        Run("lenet", warmup=-1)
    with pytest.raises(UserError, match="--warmup True: expected a string, got bool"):
        Run("lenet", warmup=True)
