"""Options of commands: each declared once, by the field of a dataclass, and what a shell may
complete."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from mpitrain.commands import guide
from mpitrain.commands.submit import Job
from mpitrain.engine import registry as engines
from mpitrain.exchange import registry as exchanges
from mpitrain.job import recipe
from mpitrain.job.config import Run, option
from mpitrain.job.errors import UserError
from mpitrain.job.plain import plain
from mpitrain.network import known


class Network(click.types.StringParamType):
    """The name of a network, or a network file; `network/models` says whether there is such a
    one."""

    name = "network"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names; files where no name begins so."""
        return words_from(known.NAMES, incomplete) or [CompletionItem(incomplete, "file")]


def words_from(words: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """Those that begin so."""
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The words, files or folders that an option may take; of several with commas between, the
    last."""
    name = str(param.name)
    before, comma, last = incomplete.rpartition(",")
    words = words_from(guide.WORDS.get(name, ()), last if name == "augment" else incomplete)
    if name == "augment":
        return [CompletionItem(f"{before}{comma}{word.value}") for word in words]
    kind = "dir" if name in guide.FOLDERS else "file" if name in guide.FILES else ""
    return words or ([CompletionItem(incomplete, kind)] if kind else [])


REGISTRIES: dict[str, Mapping[str, Any]] = {
    "engine": engines.REGISTRY,
    "exchange": exchanges.REGISTRY,
}
"""Option -> what it may name beside `auto`."""


class _Named(click.Choice[str]):
    """A choice that an argument may follow: lowrank:8. Its own module checks that."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = str(value)
        super().convert(name.partition(":")[0], param, ctx)
        return name


class _Exchange(_Named):
    """The name of an exchange, which a number may follow."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = super().convert(value, param, ctx)
        if ":" in name:
            exchanges.check(name)
        return name


def _choice_of(name: str, facts: Mapping[str, Any]) -> click.Choice[str] | None:
    """What an option may be, if there is a list; of exchanges and engines, those that are
    registered."""
    if name in REGISTRIES:
        names = ("auto", *REGISTRIES[name])
        return _Exchange(names) if name == "exchange" else click.Choice(names)
    kind = _Named if facts.get("arguments") else click.Choice
    return kind(facts["choices"]) if "choices" in facts else None


def options_of(
    settings: type[Run] | type[Job],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """One click option a field of a dataclass, so that each is declared once."""
    hints = typing.get_type_hints(settings)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for each in reversed(dataclasses.fields(settings)):
            facts = each.metadata
            if not facts:
                continue
            kinds = [
                kind
                for kind in typing.get_args(hints[each.name]) or (hints[each.name],)
                if kind is not type(None)
            ]
            more: dict[str, Any] = {
                "default": each.default,
                "help": facts["help"],
                "hidden": facts.get("hidden", False),
            }
            if kinds[0] is bool:
                more["is_flag"] = True
            else:
                more["type"] = _choice_of(each.name, facts) or kinds[0]
                more["metavar"] = facts.get("metavar")
                more["show_default"] = each.default not in (None, "")
            if kinds[0] is str and not isinstance(more["type"], click.Choice):
                more["shell_complete"] = complete
            if "optional_value" in facts:
                more |= {"is_flag": False, "flag_value": facts["optional_value"]}
            function = click.option(option(each.name), each.name, **more)(function)
        return function

    return decorate


def take_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make a file's settings the defaults of what is typed."""
    if path is None:
        return
    try:
        ctx.default_map = recipe.read(path)
    except UserError as error:
        raise click.UsageError(f"--config {plain(str(error))}", ctx) from None


device_option = click.option(
    "--device",
    metavar="DEVICE",
    default="auto",
    shell_complete=complete,
    help=Run.__dataclass_fields__["device"].metadata["help"],
)
