"""The commands: options in, one call out. Every way to end, good or bad, goes through `main`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from mpitrain import __version__
from mpitrain.commands import guide
from mpitrain.commands.cli.ending import end, leave, of_stdout, refuse
from mpitrain.commands.cli.meeting import compare, launched, on_first_rank, rank, typed_options
from mpitrain.commands.cli.options import (
    Network,
    complete,
    device_option,
    options_of,
    take_config,
    words_from,
)
from mpitrain.commands.submit import Job
from mpitrain.job.config import Run
from mpitrain.job.errors import (
    DONE,
    UserError,
    agreed,
)
from mpitrain.job.plain import plain
from mpitrain.job.stdout import open_all
from mpitrain.network import known
from mpitrain.watch import witness

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 120}


LENGTHS = ("steps", "epochs")
"""Options of how long a run is, of which the shorter counts."""
COMPLETE = "_MPITRAIN_COMPLETE"
"""What a shell sets when it asks for words (click's protocol)."""
FORWARDING = ("submit", "scaling")
"""Commands that hand further options to the training."""
COLLECTIVE = ("train", "evaluate")
"""Commands that all ranks of a job carry out; the first rank alone carries out the others."""


class Command(click.Command):
    """A command that begins when all ranks of the job are known to be asked for the same."""

    def invoke(self, ctx: click.Context) -> Any:
        if not launched():
            return self._carry_out(ctx)
        if ctx.info_name == "train":
            witness.call()  # before MPI has threads
        compare({"command": ctx.info_name, **typed_options(ctx)})
        if ctx.info_name in COLLECTIVE:
            return self._carry_out(ctx)
        return on_first_rank(lambda: self._carry_out(ctx))

    def get_short_help_str(self, limit: int = 45) -> str:
        """The whole first sentence, for click's cut one ends in the middle."""
        return super().get_short_help_str(limit=200)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All options; those of training under headings."""
        if ctx.info_name != "train":
            return super().format_options(ctx, formatter)
        title, sections = "", dict[str, list[tuple[str, str]]]()
        for each in self.get_params(ctx):
            title = guide.OPTIONS.get(str(each.name), title)
            if isinstance(each, click.Option) and (record := each.get_help_record(ctx)):
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=24)
        return None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples."""
        self.epilog = guide.examples(str(ctx.info_name))
        super().format_epilog(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Options; where others go to the training, also its."""
        found = super().shell_complete(ctx, incomplete)
        if self.name in FORWARDING and incomplete.startswith("-"):
            names = {item.value for item in found}
            more = train.shell_complete(click.Context(train, info_name="train"), incomplete)
            return [*found, *(item for item in more if item.value not in names)]
        return found

    def _carry_out(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except OSError as error:
            raise of_stdout(error, sys.stdout) from None


class Commands(click.Group):
    """`mpitrain NETWORK` is `mpitrain train NETWORK`: what is no command's name is a network's. So
    is `mpitrain --config FILE`, which names one."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0].partition("=")[0] if args else ""
        trains = first == "--config" or (first and not first.startswith("-"))
        if trains and args[0] not in self.commands:
            args = ["train", *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All commands, under headings."""
        for title, names in guide.COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str()) for name in names]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands, and networks, which stand in their place."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            return found
        found += words_from(known.NAMES, incomplete)
        return found or [CompletionItem(incomplete, "file")]


@click.group(cls=Commands, context_settings=CONTEXT, epilog=guide.TOP)
@click.version_option(__version__, prog_name="mpitrain")
def commands() -> None:
    """Train convolutional networks with MPI on whatever OpenCL devices the job has."""


@commands.command()
@click.argument("network", type=Network())
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=take_config,
    help="Take settings, and NETWORK if none is typed, from the config.toml of a run (or its "
    "directory); what is typed counts before them. Its --out, --resume and display are not taken.",
)
@options_of(Run)
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> int:
    """Train NETWORK: lenet, alexnet, vgg11 to vgg19, resnet18 to resnet152, densenet121 to
    densenet201, mobilenetv2, or a network file (.toml)."""
    typed = click.core.ParameterSource.COMMANDLINE
    if typed in (ctx.get_parameter_source(name) for name in LENGTHS):
        # How long the run in --config was says nothing then.
        options |= {name: None for name in LENGTHS if ctx.get_parameter_source(name) is not typed}
    witness.call()
    from mpitrain.training.train import train as run

    # A second one may come when the run has ended on the first.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    return run(_agreed_run(options)).exit_code


def _agreed_run(options: Mapping[str, Any]) -> Run:
    """The run of these options; what is wrong with them is so on every rank, since all have been
    compared."""
    try:
        return Run(**options)
    except UserError as error:
        raise agreed(error) from None


@commands.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="SOURCE",
    shell_complete=complete,
    help="What training takes as --data. [default: what it was trained on]",
)
@click.option(
    "--batch-size",
    default=256,
    type=click.IntRange(1),
    help="Images at a time, all ranks together.",
)
@device_option
@click.option(
    "--skip-bad",
    default=0,
    metavar="N",
    type=click.IntRange(0),
    help="Leave out up to so many images that cannot be read.",
)
@click.option(
    "--read", default="auto", type=click.Choice(("auto", "root", "local")), help="As in training."
)
@click.option(
    "--raw", is_flag=True, help="Of a run with --ema: the weights of training, not their average."
)
@click.option("--per-class", is_flag=True, help="Also images, top-1 and precision of each class.")
@click.option(
    "--confusion",
    is_flag=True,
    help="Also how many images of each class (a row) were taken for each class (a column); of more "
    "than 20 classes the most frequent mistakes. With --json always the matrix.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    checkpoint: Path,
    data: str | None,
    batch_size: int,
    device: str,
    skip_bad: int,
    read: str,
    raw: bool,
    per_class: bool,
    confusion: bool,
    as_json: bool,
) -> None:
    """Score CHECKPOINT on the test images of --data: loss, top-1 and top-5.

    CHECKPOINT is a file, or a run directory, of which the newest one is taken.
    """
    from mpitrain.commands.evaluate import evaluate_checkpoint

    evaluate_checkpoint(
        checkpoint, data, batch_size, device, as_json, skip_bad, raw, per_class, confusion, read
    )


@commands.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--network",
    metavar="NETWORK",
    type=Network(),
    help="CHECKPOINT holds weights alone, of this network, with torchvision's names.",
)
@click.option("--top", default=5, type=click.IntRange(1), help="Classes to show for an image.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an image.")
def predict(
    checkpoint: Path,
    images: Sequence[Path],
    network: str | None,
    top: int,
    device: str,
    as_json: bool,
) -> int:
    """Say what IMAGES show (files of any format that Pillow reads, or folders of them): classes and
    probabilities, best first.

    CHECKPOINT is a file, or a run directory, of which the newest one is taken. A file that is no
    image is named, and makes the exit code 1.
    """
    from mpitrain.commands.predict import predict_files

    return predict_files(checkpoint, images, top, device, as_json, network)


@commands.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@device_option
@click.option(
    "--port", default=8765, type=click.IntRange(0, 65535), help="Of the page; 0 takes a free one."
)
@click.option("--no-browser", is_flag=True, help="Print the page's address, and open nothing.")
def demo(checkpoint: Path, device: str, port: int, no_browser: bool) -> None:
    """Open a page to draw a digit, choose an image or use the camera, and see what CHECKPOINT
    takes it for.

    CHECKPOINT is a file, or a run directory, of which the newest one is taken. The page is on this
    machine alone.
    """
    from mpitrain.commands.demo import serve

    serve(checkpoint, device, port, not no_browser, lambda line: print(plain(line), flush=True))


@commands.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--network",
    metavar="NETWORK",
    type=Network(),
    help="CHECKPOINT holds weights alone, of this network, with torchvision's names.",
)
@click.option(
    "--raw", is_flag=True, help="Of a run with --ema: the weights of training, not their average."
)
def export(checkpoint: Path, file: Path, network: str | None, raw: bool) -> None:
    """Write the weights of CHECKPOINT to FILE, for other programs.

    CHECKPOINT is a file, or a run directory, of which the newest one is taken.

    FILE.safetensors has the tensors by torchvision's names, FILE.onnx the network that takes
    images (N, C, H, W) of pixels in [0, 1] and gives scores (N, classes).
    """
    from mpitrain.commands.export import export as write

    print(plain(write(checkpoint, file, network, raw)))


@commands.command()
@click.argument("network", type=Network())
@click.option(
    "--data",
    metavar="SOURCE",
    shell_complete=complete,
    help="Adapt the network to this data. [default: its own size and classes]",
)
@click.option("--classes", type=click.IntRange(1), help="Classes of the last layer.")
@click.option(
    "--batch-size",
    default=32,
    type=click.IntRange(1),
    help="Images on one device, for the memory plan.",
)
@click.option(
    "--ranks", default=4, type=click.IntRange(1), help="Ranks, for the bytes on the wire."
)
@click.option("--toml", is_flag=True, help="Print the network as a network file instead.")
def summary(
    network: str, data: str | None, classes: int | None, batch_size: int, ranks: int, toml: bool
) -> None:
    """Show the layers of NETWORK: shapes, parameters, work, memory, and bytes between ranks in a
    step."""
    from mpitrain.commands.summary import print_summary

    print_summary(network, data, classes, batch_size, ranks, toml)


@commands.command()
@click.argument("network", type=Network())
@click.option(
    "--data",
    metavar="SOURCE",
    shell_complete=complete,
    help="Adapt the network to this data. [default: its own size and classes]",
)
@click.option(
    "--batch-size",
    default=16,
    type=click.IntRange(1),
    help="Images that one rank computes at a time.",
)
@device_option
@click.option("--again", is_flag=True, help="Measure also what is known.")
def tune(network: str, data: str | None, batch_size: int, device: str, again: bool) -> None:
    """Measure which algorithm is fastest for each convolution of NETWORK on this device, and
    remember it.

    Training takes what is remembered, and else what a count of the work favours: tuning is never
    needed, but may help.
    """
    from mpitrain.commands.tune import tune as measure

    measure(network, data, batch_size, device, again)


@commands.command()
@click.option(
    "--ranks", default=4, type=click.IntRange(1), help="Local ranks to show the choice for."
)
@device_option
def devices(ranks: int, device: str) -> None:
    """List OpenCL platforms and devices, and which one each local rank would take, and why."""
    from mpitrain.commands.summary import print_devices

    print_devices(ranks, device)


@commands.command(context_settings={"ignore_unknown_options": True})
@click.argument("network", type=Network())
@click.option("--ranks", default="1,2,4,8", help="Numbers of ranks to run with.")
@click.option(
    "--launcher",
    default="mpirun -n {ranks}",
    help="How to start ranks; {ranks} stands for their number.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for curve.csv, curve.png and the runs. [default: runs/scaling-<network>-<time>]",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def scaling(
    network: str, ranks: str, launcher: str, out: Path | None, options: Sequence[str]
) -> None:
    """Train NETWORK with each number of ranks and draw the curve beside the paper's. Further
    OPTIONS go to the training.

    It has 41 steps of lenet, or 6 of another network, unless OPTIONS say how long it is.
    """
    from mpitrain.commands.scaling import measure

    measure(network, ranks, launcher, out, options)


@commands.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def curve(folder: Path) -> None:
    """Draw the curve of the runs in FOLDER/ranks-1, ranks-2, ..., which jobs/scaling.sh leaves
    behind."""
    from mpitrain.commands.redraw import redraw

    redraw(folder)


@commands.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page. [default: report.html in the first run's folder]",
)
@click.option(
    "--csv",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a table instead: a row for each step, and what tests found after it, of any number "
    "of runs.",
)
def report(runs: Sequence[Path], out: Path | None, csv: Path | None) -> None:
    """Write one HTML page of a run, or of two runs side by side: curves, where time went, bytes,
    devices and settings.

    RUN is a run directory. The page needs no network, and may be made while the run goes on.
    """
    from mpitrain.commands.report import report as write

    print(plain(str(write(runs, out, csv))))


@commands.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--every", default=2.0, type=click.FloatRange(0.1), help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="Look once, and end.")
def watch(run: Path, every: float, once: bool) -> int:
    """Watch a run that is computed elsewhere, as under SLURM, until its end.

    RUN is a run directory; one that is not there yet is waited for. Ends with the run's exit code.
    """
    from mpitrain.commands.watch import watch as follow

    return follow(run, every, once)


class Submitting(Command):
    """What stands behind `--` is for sbatch."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            args, ctx.meta[SBATCH] = args[:place], args[place + 1 :]
        return super().parse_args(ctx, args)


SBATCH = "mpitrain.sbatch"


@commands.command(cls=Submitting, context_settings={"ignore_unknown_options": True})
@click.argument("network", type=Network())
@options_of(Job)
@click.option("--dry-run", is_flag=True, help="Print the job script instead of submitting it.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def submit(network: str, dry_run: bool, options: Sequence[str], **asked: Any) -> None:
    """Train NETWORK as a job of SLURM. Further OPTIONS go to the training, and are checked before
    the job waits in the queue; those behind -- go to sbatch: -- --constraint=a100 --exclusive."""
    from mpitrain.commands.submit import submit as hand_in

    settings = train.make_context("mpitrain train", [network, *options]).params
    Run(**settings)
    sbatch = click.get_current_context().meta.get(SBATCH, ())
    hand_in(network, options, Job(**asked), dry_run, sbatch)


@commands.command()
def launcher() -> None:
    """Print how ranks are started in a job of SLURM: by srun, with what suits the MPI that is
    installed, or by mpirun. Job scripts ask it."""
    from mpitrain.commands.submit import print_launcher

    print_launcher()


@commands.command(context_settings={"ignore_unknown_options": True})
@click.argument("code", type=click.IntRange(0, 255))
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The run directory.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def requeue(code: int, out: Path | None, options: Sequence[str]) -> int:
    """End a job of SLURM as its training ended, and put it back into the queue if that was stopped
    with a checkpoint (75).

    Job scripts call it with CODE, the launcher's exit code. With --out the log decides: the end
    that this start of the job has left in it, else CODE, and CODE 0 without an end is 1. OPTIONS
    are those of the training; the last --out counts.
    """
    from mpitrain.commands.requeue import conclude

    return conclude(code, out)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Whatever happens on this rank, the whole job ends: with one line, and the
    exit code of CLI.md."""
    open_all()
    if os.environ.get(COMPLETE):
        commands.main(prog_name="mpitrain")  # click answers the shell, and exits
    stdout = sys.stdout
    threading.excepthook = lambda args: end(args.exc_value)
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if asked := [word for word in words if word in ("-h", "--help", "--version")]:
            if launched():
                compare({"command": asked[0]})
            if rank():
                raise click.exceptions.Exit(DONE)  # the first rank says it
        result = commands.main(
            args=None if arguments is None else list(arguments),
            prog_name="mpitrain",
            standalone_mode=False,
        )
    except click.exceptions.Exit as early:
        sys.exit(early.exit_code)
    except click.ClickException as error:
        refuse(error)
    except BaseException as error:
        end(of_stdout(error, stdout))
    leave(result if isinstance(result, int) else DONE)
