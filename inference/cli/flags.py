"""Flags of the command line: the file, the fields of a model, and the options of a back end's `fit`."""

import contextlib
import dataclasses
import inspect
import io
import re
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import nn

ALWAYS = {
    "seed": "of all random numbers; the same seed gives the same answer",
    "num_samples": "draws; of each chain after warm-up, where there are chains",
    "num_warmup": "steps of each chain that tune it and are thrown away",
    "num_chains": "chains, all in one process",
    "progress_bar": "show how far it is",
}


def parse(cls: Any, back_end: Callable[..., Any], words: Sequence[str], command: str) -> dict[str, Any]:
    """Return the value of every flag by name; print the help and leave when it is asked for.

    Raises: ValueError of one line for words that are no flags, or values of the wrong type.
    """
    told = f"{first_line(cls)}\n{first_line(back_end)}"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            flags = tyro.cli(_flags(cls, back_end), args=list(words), prog=command, description=told)
    except SystemExit as end:
        if not end.code:
            raise
        raise ValueError(f"{_one_line(complaint.getvalue())}; see {command} --help") from None
    return {field.name: getattr(flags, field.name) for field in dataclasses.fields(flags)}


def first_line(documented: Any) -> str:
    """Return the first sentence of a docstring."""
    return (inspect.getdoc(documented) or "").split("\n\n")[0].replace("\n", " ")


def _flags(cls: Any, back_end: Callable[..., Any]) -> Any:
    """A dataclass of every flag."""
    fields: list[Any] = [
        ("data", *_flag(Path | None, None, "the CSV, Parquet or NPZ file to read")),
        ("out", *_flag(Path | None, None, "the folder to write into; runs/MODEL unless said")),
        ("columns", *_flag(tuple[str, ...], (), "ARRAY=COLUMN[,COLUMN...]: columns of the file that make an array")),
        ("accept_warnings", *_flag(bool, False, "exit with 0 even when the diagnosis warns")),
    ]
    hints, comments = typing.get_type_hints(cls), _comments(cls)
    own = [f for f in dataclasses.fields(cls) if not _holds_module(hints[f.name])]
    fields += [(f.name, *_flag(hints[f.name], f.default, comments.get(f.name, ""))) for f in own]
    hints, told = typing.get_type_hints(back_end), _told(back_end)
    for name, parameter in inspect.signature(back_end).parameters.items():
        hint = str | None if hints.get(name) is Any and parameter.default is None else hints.get(name)
        if parameter.kind is parameter.KEYWORD_ONLY and _is_plain(hint):
            default = True if name == "progress_bar" else parameter.default
            fields.append((name, *_flag(hint, default, told.get(name, ALWAYS.get(name, "")))))
    return dataclasses.make_dataclass("Flags", fields)


def _flag(hint: Any, default: Any, text: str) -> tuple[Any, Any]:
    return Annotated[hint, tyro.conf.arg(help=text)], default


def _holds_module(hint: Any) -> bool:
    """Is it a network, which only a program can bring?"""
    return any(isinstance(part, type) and issubclass(part, nn.Module) for part in (hint, *typing.get_args(hint)))


def _is_plain(hint: Any) -> bool:
    """Can it be written on a command line?"""
    if isinstance(hint, types.UnionType):
        return all(_is_plain(part) for part in typing.get_args(hint))
    return hint in {int, float, str, bool, Path, type(None)} or typing.get_origin(hint) is typing.Literal


def _comments(cls: Any) -> dict[str, str]:
    """What is said behind a field: `ordered: bool = False  # the first coordinates increase`."""
    return dict(re.findall(r"^    (\w+): [^#\n]*  # (.+)$", inspect.getsource(cls), re.M))


def _told(back_end: Callable[..., Any]) -> dict[str, str]:
    """What the docstring says of each option: `num_steps: steps at most`, and the lines below that are indented."""
    doc = inspect.getdoc(back_end) or ""
    found = re.findall(r"^([a-z_]+(?:, [a-z_]+)*): (.+(?:\n    .+)*)", doc, re.M)
    return {name: re.sub(r"\s+", " ", text) for names, text in found for name in names.split(", ")}


def _one_line(complaint: str) -> str:
    """What tyro says between the two upper rules: of a box on a terminal, of plain text in a pipe."""
    heading, _, rest = re.sub("[─-]{4,}", "----", complaint).partition("----")
    said = rest.strip("╮\n ").split("----")[0]
    words = [line.strip("│| ") for line in said.splitlines()]
    return " ".join(filter(None, words)) or heading.strip() or "the flags cannot be read"
