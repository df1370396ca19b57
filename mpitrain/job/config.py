"""What a training run is: every setting with its meaning, declared once, for the command line, the
log and the library alike."""

from __future__ import annotations

import math
import numbers as numbers_abc
from dataclasses import dataclass, field, fields, replace
from typing import Any

from mpitrain.job.errors import UserError

NETWORK_DEFAULTS = {"data": "synthetic", "batch_size": 256, "weight_decay": 0.0}
"""For settings that are None until the network has its say."""
SCHEDULES = ("constant", "step", "cosine", "linear", "polynomial")
"""Ways in which a learning rate moves; training/schedule.py has their equations."""
LARGE_DENSE = 1 << 20
"""Weights from which on --dense split splits a layer, unless it says. Of a smaller one the gradient
is soon sent."""


def _option(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Run:
    """One training run. Fields are the options of `mpitrain train`; None stands for what the help
    says."""

    network: str
    data: str | None = _option(
        None,
        "digits (a small real set that ships along), synthetic, mnist, fashion-mnist or cifar10 "
        "(found on this machine, else fetched once), an MNIST IDX or CIFAR folder (binary or "
        "python version), a folder of class folders, WebDataset shards (a .tar, a folder of them, "
        "shard-{0000..0007}.tar), or an .npz (with our names, Keras's or MedMNIST's). "
        "[default: digits for lenet, synthetic for others]",
        metavar="SOURCE",
    )
    layout: str | None = _option(
        None,
        "How an .npz holds its images: nchw for (n, channels, height, width), nhwc for (n, height, "
        "width, channels). [default: nchw, and what looks like nhwc is refused]",
        choices=("nchw", "nhwc"),
    )
    batch_size: int | None = _option(
        None, "Images a step, all ranks together. [default: 64 for lenet, 256 for others]", least=1
    )
    sub_batch: int | None = _option(
        None,
        "Images a device holds at once; gradients add up. [default: as memory allows]",
        least=1,
    )
    epochs: int | None = _option(
        None, "Passes over the training images. [default: 10, if --steps is not given]", least=0
    )
    steps: int | None = _option(
        None,
        "Updates; with --epochs whichever comes first. [default: 10 for synthetic data]",
        least=0,
    )
    lr: float = _option(0.01, "Learning rate.", above=0.0)
    momentum: float = _option(0.9, "Momentum coefficient.", least=0.0, below=1.0)
    nesterov: bool = _option(False, "Nesterov's momentum, which looks a step ahead.")
    weight_decay: float | None = _option(
        None,
        "Pull of each weight towards 0. [default: 5e-4 for vgg and alexnet, 1e-4 for resnet and "
        "densenet, 4e-5 for mobilenetv2, else 0]",
        least=0.0,
    )
    clip_norm: float | None = _option(
        None,
        "Shrink the batch's mean gradient to this norm, over all tensors, where it is longer.",
        metavar="NORM",
        above=0.0,
        below=math.inf,
    )
    ema: float | None = _option(
        None,
        "Evaluate with an exponential moving average of the weights, which keeps this share of "
        "itself at each step (0.999); at first less, (1 + step) / (10 + step). Checkpoints hold "
        "both.",
        metavar="DECAY",
        above=0.0,
        below=1.0,
    )
    schedule: str = _option(
        "constant",
        "How the learning rate moves after the warm-up: step, to a tenth after 1/2 and 3/4 of the "
        "run or where step:30ep,60ep says; cosine, linear and polynomial[:POWER] (2 by default) "
        "down to 0.",
        choices=SCHEDULES,
        arguments=True,
    )
    warmup: str = _option(
        "0",
        "Steps (100) or epochs (2ep) in which the learning rate rises to --lr.",
        metavar="N|Nep",
        interval=0,
    )
    exchange: str = _option(
        "auto",
        "How gradients travel: coded (by one rank of each host, for all of it), as float32 through "
        "MPI, or through memory that ranks of one host share; lowrank[:RANK]: as factors of "
        "matrices, with which every rank updates its own weights (--update replicated); "
        "lowrank8[:RANK]: the same in 8 bits a value; star-: all "
        "through rank 0, the paper's way, for comparisons.",
    )
    dense: str = _option(
        "auto",
        "Dense layers: whole on every rank; or split, from 1,048,576 weights on or from as many as "
        "split:WEIGHTS says: each rank keeps and updates a slice of such a layer, and activations "
        "travel instead of its gradients. auto: whole, and says when split would be faster.",
        metavar="auto|whole|split[:WEIGHTS]",
    )
    activations: str = _option(
        "float32",
        "How activations of split dense layers travel: as float32, exactly; or in the 8-bit code, "
        "a quarter of the bytes, each value within 1/142 of the power of two above its block's "
        "largest.",
        choices=("float32", "dynamic8"),
    )
    update: str = _option(
        "root", "Who applies momentum SGD: rank 0, or every rank.", choices=("root", "replicated")
    )
    no_streaming: bool = _option(
        False, "Exchange each bucket before the backward pass goes on, for comparisons."
    )
    device: str = _option(
        "auto",
        "auto, cpu, gpu, or part of a platform's name, with an index: pocl, nvidia:1.",
        metavar="DEVICE",
        own=True,
    )
    engine: str = _option(
        "auto",
        "What a device computes with (its kernels, algorithms and layout of images): what suits "
        "it, or another one for comparisons.",
        own=True,
    )
    precision: str = _option(
        "float32",
        "Format of what convolutions multiply and of images between layers: float32 on any "
        "device; on an NVIDIA GPU's tensor cores high (pairs of bfloat16, about 16 bits), tf32 "
        "(11 bits) or bf16 (8 bits), with sums, weights and all else in float32.",
        choices=("float32", "high", "tf32", "bf16"),
    )
    balance: str = _option(
        "equal",
        "How a batch is divided: alike, or in proportion to each rank's measured speed.",
        choices=("equal", "speed"),
    )
    augment: str = _option(
        "",
        "Change training images at random, with commas between: crop (shift by up to an eighth), "
        "resized (a part of any size, scaled), flip (left to right), jitter (brightness, contrast, "
        "saturation).",
        metavar="WAYS",
    )
    resize: int | None = _option(
        None,
        "Pixels that the shorter side of a photo (folders, shards) is scaled to before a part "
        "around its centre is taken, to train without --augment resized and to test: 256 is usual "
        "for 224. [default: as few as that part needs]",
        metavar="PIXELS",
        least=1,
    )
    label_smoothing: float = _option(
        0.0, "Share of a label that all classes get alike: 0.1 is usual.", least=0.0, below=1.0
    )
    mixup: float = _option(
        0.0,
        "Blend training images, and their labels, in pairs by shares from Beta(A, A); 0: do not.",
        metavar="A",
        least=0.0,
        below=math.inf,
    )
    read: str = _option(
        "auto",
        "Who reads training and test images: root (rank 0, for all), local (each rank its own, "
        "which must see the same), or auto: local where all ranks see the same, but for arrays on "
        "one host.",
        choices=("auto", "root", "local"),
    )
    decoders: int | None = _option(
        None,
        "Threads that decode photos on a rank that reads them. [default: by its share of cores]",
        metavar="N",
        least=1,
        own=True,
    )
    mean: str = _option(
        "",
        "Per-channel means of pixels in [0, 1], instead of the training set's: 0.5 or 0.5,0.5,0.4.",
        metavar="NUMBERS",
    )
    std: str = _option("", "Per-channel deviations, likewise.", metavar="NUMBERS")
    classes: int | None = _option(
        None, "Classes of the last layer. [default: the labels' maximum + 1]", least=1
    )
    skip_bad: int = _option(
        0,
        "Leave out up to so many images that cannot be read, or have a label that is no class; the "
        "next one ends the run.",
        metavar="N",
        least=0,
    )
    out: str | None = _option(
        None, "Run directory. [default: runs/<network>-<time>]", metavar="DIR"
    )
    checkpoint_every: str = _option(
        "1ep",
        "Steps (100) or epochs (2ep) between checkpoints; one is always written at the end.",
        metavar="N|Nep",
        interval=1,
    )
    evaluate_every: str = _option(
        "1ep",
        "Steps or epochs between evaluations on the test images.",
        metavar="N|Nep",
        interval=1,
    )
    keep: str = _option(
        "3",
        "How many of the newest checkpoints stay. best,3: also the one with the best score on the "
        "test images (top-1, then loss), written when it is found; best.safetensors leads to it.",
        metavar="[best,]N",
    )
    patience: int | None = _option(
        None,
        "End the run when so many evaluations, one after the other, brought no better score.",
        metavar="N",
        least=1,
    )
    resume: str | None = _option(
        None,
        "Go on from the newest whole checkpoint of --out (from the beginning if it has none yet), "
        "or from PATH.",
        metavar="[PATH]",
        optional_value="newest",
    )
    init: str | None = _option(
        None,
        "Start from the weights and statistics of this file: a checkpoint, or a safetensors or "
        "PyTorch file (.pth, of which nothing is run) with torchvision's names. Its tensors must "
        "be the network's, in name and shape.",
        metavar="PATH",
    )
    init_partial: bool = _option(
        False,
        "With --init: take the tensors whose name and shape fit, and draw the others anew (a "
        "thousand classes' for ten). From one VGG to another, convolutions go by stage and place "
        "in it (VGG11's for VGG16).",
    )
    seed: int = _option(0, "For weights, order, augmentation and dropout.", least=0)
    no_dropout: bool = _option(False, "Leave dropout out, for comparisons.")
    compute_seconds: float | None = _option(
        None,
        "Do not compute: sleep so long for each image, while everything travels as it would. "
        "Nothing is learnt, nothing saved.",
        metavar="S",
        least=0.0,
        below=math.inf,
    )
    strict: bool = _option(
        False,
        "The same weights, bit for bit, for any number of ranks of one kind of device: the batch "
        "is computed in pieces of --sub-batch images, by default a 32nd of it, whose gradients are "
        "added up in fixed point.",
    )
    trace: int | None = _option(
        None,
        "Write what every rank did in some steps, when and how long, to trace.json in the run "
        "directory, for chrome://tracing or Perfetto: phases, layers on the device, messages. Of "
        "so many steps (by default 5) after the first two, which compile.",
        metavar="[STEPS]",
        optional_value=5,
        least=1,
    )
    on_failure: str = _option(
        "stop",
        "When a rank dies: stop, or, once steps have begun, continue with the others (Open MPI 5 "
        "under mpirun --with-ft ulfm; copies the weights every step).",
        choices=("stop", "continue"),
    )
    stall_seconds: float = _option(
        600.0, "End the job when a rank makes no progress for so long.", above=0.0
    )
    quiet: bool = _option(False, "No progress display.")
    verbose: bool = _option(False, "Tracebacks with errors, and every rank's device.", own=True)
    json: bool = _option(False, "Print the log's lines to stdout instead of the progress display.")
    inject: str = _option(
        "", "A fault for tests: kind=raise,rank=1,step=3,phase=forward.", hidden=True
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if "interval" in each.metadata and _is_whole(value):
                value = str(int(value))  # 100 means "100"
                object.__setattr__(self, each.name, value)
            _check_type(each.name, value, str(each.type))
            if each.metadata:
                _check(each.name, value, each.metadata)
        kept(self.keep)
        if split_from(self.dense) is not None:
            self._check_split()
        elif self.activations != "float32":
            raise UserError(
                f"--activations {self.activations}: expected --dense split, got {self.dense}"
            )

    def _check_split(self) -> None:
        """Raise UserError for what nobody can do with layers of which each rank has a slice."""
        reasons = {
            "--on-failure continue": (
                self.on_failure == "continue", "a rank that dies takes its slices with it"
            ),
            "--strict": (self.strict, "which products are added up depends on the ranks"),
            "--ema": (self.ema is not None, "slices have no average"),
            "--clip-norm": (self.clip_norm is not None, "slices are not in the norm"),
        }  # fmt: skip
        for option, (given, why) in reasons.items():
            if given:
                raise UserError(f"--dense {self.dense}: not together with {option}; {why}")

    def completed(
        self, defaults: dict[str, Any], synthetic_steps: int = 10, epochs: int = 10
    ) -> Run:
        """The run with the network's own defaults where nothing was said."""
        known = {**NETWORK_DEFAULTS, **defaults}
        given = {
            name: getattr(self, name) if getattr(self, name) is not None else known[name]
            for name in NETWORK_DEFAULTS
        }
        run = replace(self, **given)
        if run.steps is None and run.epochs is None:
            short = is_made_up(str(run.data))
            run = replace(
                run, steps=synthetic_steps if short else None, epochs=None if short else epochs
            )
        return run


OWN = frozenset(each.name for each in fields(Run) if each.metadata.get("own"))
"""Options that a rank may have of its own; all others must be the same on all ranks."""


def shared(run: Run) -> dict[str, Any]:
    """What all ranks of a run must have been asked alike, by the names under which it is typed."""
    names = (each.name for each in fields(run) if each.name not in OWN)
    return {option(name) if name != "network" else name: getattr(run, name) for name in names}


def is_made_up(data: str) -> bool:
    """Whether --data names images that are made on the fly: `synthetic` or `synthetic:COUNT`."""
    return data == "synthetic" or data.startswith("synthetic:")


def option(name: str) -> str:
    """A field's name as it is typed."""
    return "--" + name.replace("_", "-")


def interval(text: str, steps_per_epoch: int, name: str, least: int = 1) -> int:
    """Steps in "100" or "2ep". Raises UserError for anything else, and for fewer than `least`."""
    number = whole(text.removesuffix("ep"))
    if number is None or number < least:
        raise UserError(f"{name} {text}: expected steps (100) or epochs (2ep)")
    return number * (steps_per_epoch if text.endswith("ep") else 1)


def kept(text: str) -> tuple[int, bool]:
    """How many of the newest checkpoints "3" or "best,3" keeps, and whether the best one too.
    Raises UserError for anything else."""
    number = whole(text.removeprefix("best,"))
    if not number:
        raise UserError(f"--keep {text}: expected a number of checkpoints (3), or best,3")
    return number, text.startswith("best,")


def split_from(dense: str) -> int | None:
    """From how many weights on --dense splits a dense layer; None: none is split. Raises UserError
    for what --dense cannot be."""
    name, colon, text = dense.partition(":")
    least = whole(text) if colon else LARGE_DENSE
    if name not in ("auto", "whole", "split") or not least or (colon and name != "split"):
        raise UserError(
            f"--dense {dense}: expected auto, whole, split, or split: and from how many weights on"
        )
    return least if name == "split" else None


def whole(text: str) -> int | None:
    """A number of up to 18 digits, those of ASCII; None for anything else. (int() takes "1_0" and
    no more than 4,300; isdigit() takes "²".)"""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def numbers(text: str, count: int, name: str, above: float = -math.inf) -> list[float]:
    """One number for all channels or one for each, finite and larger than `above`. Raises UserError
    for anything else."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{name} {text}: expected numbers with commas between") from None
    for value in found:
        if not above < value < math.inf:
            raise UserError(
                f"{name} {text}: {value:g} is not "
                f"{f'above {above:g}' if value <= above else 'finite'}"
            )
    if len(found) not in (1, count):
        raise UserError(f"{name} {text}: {len(found)} numbers for {count} channels")
    return found * count if len(found) == 1 else found


KINDS: dict[str, tuple[type, str]] = {
    "int": (numbers_abc.Integral, "a whole number"),
    "float": (numbers_abc.Real, "a number"),
    "str": (str, "a string"),
    "bool": (bool, "True or False"),
}
"""Types of fields, and their words."""


def _check_type(name: str, value: Any, hint: str) -> None:
    """Raise UserError for a value of another type: the command line makes none, a program may."""
    kind, words = KINDS[hint.partition(" |")[0]]
    if value is None and "None" in hint:
        return
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{option(name)} {value!r}: expected {words}, got {type(value).__name__}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers_abc.Integral) and not isinstance(value, bool)


def _check(name: str, value: Any, facts: Any) -> None:
    if value is None:
        return
    wrong = None
    word, _, argument = str(value).partition(":")
    if not facts.get("arguments"):
        word = value
    if "interval" in facts:
        interval(value, 1, option(name), facts["interval"])
    if "choices" in facts and word not in facts["choices"]:
        wrong = f"expected one of {', '.join(facts['choices'])}"
    elif "least" in facts and not value >= facts["least"]:
        wrong = f"must be at least {facts['least']}"
    elif "above" in facts and not value > facts["above"]:
        wrong = f"must be above {facts['above']}"
    elif "below" in facts and not value < facts["below"]:
        wrong = f"must be below {facts['below']}"
    elif ":" in str(value) and facts.get("arguments"):
        wrong = _wrong_argument(word, argument)
    if wrong:
        raise UserError(f"{option(name)} {value}: {wrong}")


def _wrong_argument(schedule: str, argument: str) -> str | None:
    """What is wrong with what stands behind a schedule's name and a colon; None if nothing is."""
    if schedule == "step":
        counts = [whole(each.removesuffix("ep")) for each in argument.split(",")]
        return None if all(counts) else "expected steps or epochs, as in step:30ep,60ep"
    if schedule == "polynomial":
        try:
            power = float(argument)
        except ValueError:
            power = 0.0
        return None if 0 < power < math.inf else "expected a power above 0, as in polynomial:2"
    return f"expected nothing after {schedule}"


def known(value: Any) -> Any:
    """A setting that `Run.completed` has filled in."""
    assert value is not None
    return value
