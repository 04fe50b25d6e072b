"""The command `ppmodels`: list, fit, summary, plot, report. Flags are the models' fields and the methods' options."""

import dataclasses
import importlib
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import inference
import ppmodels
from inference.base import Fit
from inference.cli import flags as flags
from inference.cli import table as tables
from ppmodels.base import HasBlocks, HasEM, HasGuide, HasPosterior

HEADINGS = ("model", "what it is", "knows itself")
DOUBTFUL, BAD_INPUT, INTERRUPTED = 1, 2, 130
COUNTS = ("dim", "features")  # fields that are a number of columns, and so follow the file

USAGE = """ppmodels: write a model once, invert it in every way, look at the answer in ArviZ.

  ppmodels list                                   models, and what can fit them
  ppmodels fit MODEL --method NAME --data FILE    fit a model to a CSV, Parquet or NPZ file; --help lists its flags
  ppmodels summary DIR                            the table of the fits in a folder
  ppmodels plot DIR                               their pictures
  ppmodels report DIR                             one HTML page of all that

Exit codes: 0 when all is well, 1 when a fit is not to be trusted (--accept-warnings makes it 0), 2 for bad input."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; exit with 0 when all is well, 1 when a fit is not to be trusted, 2 for bad input."""
    command, *words = list(sys.argv[1:] if argv is None else argv) or [""]
    commands = {"list": _list, "fit": _fit, "summary": _summary, "plot": _plot, "report": _report}
    asks = not {"-h", "--help"}.isdisjoint([command, *words])
    if not command or (asks and (command != "fit" or not words or words[0].startswith("-"))):
        print(USAGE)
        sys.exit(0 if asks else BAD_INPUT)
    if command not in commands:
        _leave(f"no command {command!r}; there are: {', '.join(commands)}", BAD_INPUT)
    try:
        sys.exit(commands[command](words))
    except (ValueError, KeyError, TypeError, OSError) as error:
        _leave(str(error.args[0] if isinstance(error, KeyError) else error), BAD_INPUT)
    except (ArithmeticError, MemoryError) as error:
        _leave(str(error) or "there is not enough memory", DOUBTFUL)
    except KeyboardInterrupt:
        _leave("interrupted; nothing is written", INTERRUPTED)


def _list(words: Sequence[str]) -> int:
    """Models, what they are, and what they know in closed form; `--markdown` for the README."""
    rows = [_catalogue(name) for name in ppmodels.names()]
    if "--markdown" in words:
        lines = [HEADINGS, ["---"] * len(HEADINGS), *([f"`{name}`", *rest] for name, *rest in rows)]
        print(*("| " + " | ".join(line) + " |" for line in lines), sep="\n")
        return 0
    table = Table(*HEADINGS, box=None)
    for row in rows:
        table.add_row(*row)
    _console().print(table)
    print(f"methods: {', '.join(inference.methods())}")
    return 0


def _catalogue(name: str) -> tuple[str, str, str]:
    model = ppmodels.load(name)()
    protocols = {"posterior": HasPosterior, "EM": HasEM, "guide": HasGuide, "blocks": HasBlocks}
    able = ", ".join(said for said, protocol in protocols.items() if isinstance(model, protocol))
    return name, flags.first_line(type(model)), able


def _fit(words: Sequence[str]) -> int:
    """Fit one model by one method; write METHOD.nc into the folder."""
    if not words or words[0].startswith("-"):
        raise ValueError(f"say which model: ppmodels fit MODEL; there are: {', '.join(ppmodels.names())}")
    name, rest = words[0], list(words[1:])
    cls, method = ppmodels.load(name), _method(rest)
    back_end = importlib.import_module(f"inference.{method}").fit
    values = flags.parse(cls, back_end, rest, f"ppmodels fit {name}")
    if values["data"] is None:
        raise ValueError("say which file holds the data: --data FILE")
    out: Path = values["out"] or Path("runs") / name
    _check_writable(out)
    fields = {f.name: values.pop(f.name) for f in dataclasses.fields(typing.cast(Any, cls))}
    model, data = _question(cls, fields, values["data"], tables.parse_columns(values["columns"]))
    others = {"data", "out", "columns", "accept_warnings"}
    fit = back_end(model, data, **{flag: value for flag, value in values.items() if flag not in others})
    return _keep(fit, out, values["accept_warnings"])


def _method(words: list[str]) -> str:
    """Take `--method NAME` out of the words; mcmc when it is not said."""
    name = "mcmc"
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == "--method":
            if not equals and i + 1 == len(words):
                raise ValueError("--method takes a name")
            name = value if equals else words.pop(i + 1)
            del words[i]
            break
    if name not in inference.methods():
        raise ValueError(f"no method {name!r}; there are: {', '.join(inference.methods())}")
    return name


def _question(cls: Any, fields: dict[str, Any], path: Path, columns: dict[str, tuple[str, ...]]) -> tuple[Any, Any]:
    """The model and its data: numbers of columns, centers and scales follow the file where no flag sets them."""
    wanted = tables.names_of(cls())
    arrays = tables.load(path, wanted, columns)
    untouched = {f.name for f in dataclasses.fields(cls) if fields[f.name] == f.default}
    widths = [value.shape[1] for value, _ in arrays.values() if value.ndim == 2 and value.shape[1]]
    counts = {name: max(widths) for name in COUNTS if name in untouched and widths}
    chosen = fields | counts
    data = tables.check(arrays, cls(**chosen), path)
    if not hasattr(cls, "for_data"):
        return cls(**chosen), data
    follow = {"center", "scale"} & untouched
    chosen = {name: value for name, value in chosen.items() if name not in follow}
    return cls.for_data(data.observed[cls.observed[0]], **chosen), data


def _check_writable(out: Path) -> None:
    """Before hours of sampling, not after."""
    there = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not there.is_dir():
        raise ValueError(f"{out} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{out} cannot be written: you may not write to {there}")


def _keep(fit: Fit, out: Path, accept_warnings: bool) -> int:
    """Write the fit first, then say what it is."""
    out.mkdir(parents=True, exist_ok=True)
    path = fit.save(out / f"{fit.method}.nc")
    diagnosis = fit.diagnose()
    _show({fit.method: fit})
    _console().print(diagnosis)
    print(f"written: {path}")
    return 0 if diagnosis.ok or accept_warnings else DOUBTFUL


def _show(fits: dict[str, Fit]) -> None:
    check = importlib.import_module("inference.check")
    _console().print(check.render(check.table(fits)))


def _console() -> Console:
    """As wide as the terminal; in a file or a pipe, wide enough for the table."""
    return Console(width=None if sys.stdout.isatty() else 140)


def _summary(words: Sequence[str]) -> int:
    """ArviZ's table of every fit in the folder."""
    _show(_fits(words))
    return 0


def _plot(words: Sequence[str]) -> int:
    """Pictures of every fit in the folder, written beside it."""
    for path in importlib.import_module("inference.report").draw(_fits(words), Path(words[0])):
        print(path)
    return 0


def _report(words: Sequence[str]) -> int:
    """One HTML page, and each of its pictures as a file."""
    title = Path(words[0]).resolve().name if words else ""
    print(importlib.import_module("inference.report").write(_fits(words), Path(words[0]), title=title))
    return 0


def _fits(words: Sequence[str]) -> dict[str, Fit]:
    """The fits of a folder by name."""
    if len(words) != 1:
        raise ValueError("give one folder that `ppmodels fit` has written")
    folder = Path(words[0])
    files = sorted(folder.glob("*.nc"))
    if not files:
        raise ValueError(f"there is no fit (*.nc) in {folder}")
    return {file.stem: inference.load(file) for file in files}


def _leave(message: str, code: int) -> typing.NoReturn:
    print(f"ppmodels: {message.splitlines()[0]}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
