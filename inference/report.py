"""Fits in a folder: one netCDF file each, pictures, and one HTML page that holds everything it shows."""

import base64
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from matplotlib.figure import Figure

from inference import plots
from inference.base import Fit, Unsupported
from inference.check import cells, diagnose, named, table
from inference.datatree import save
from inference.datatree.groups import as_json

PAGE = "report.html"
TITLES = {
    "compare": "All methods, mean and 89% interval",
    "objective": "What the optimisers climbed",
    "ellipses": "Data and components",
    "trace": "Draws",
    "ranks": "Ranks of the chains",
    "evolution": "Effective sample size",
    "energy": "Energy",
    "predictive": "Posterior predictive check",
}


def write(
    fits: Mapping[str, Fit] | Sequence[Fit],
    folder: str | Path,
    *,
    title: str = "Posterior",
    var_names: Sequence[str] | None = None,
) -> Path:
    """Write `METHOD.nc` for each fit, the pictures that its method allows, and `report.html`.

    Each file is written beside and renamed. The page needs nothing else: pictures are inside it.

    var_names: sites to show; by default all.

    Returns: the page's path.
    Raises: OSError when the folder cannot be made or written to; nothing is half-written then.
    """
    fits, folder = named(fits), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, fit in fits.items():
        save(fit, folder / f"{_file(name)}.nc")
    shown = [
        {"title": heading, "content": base64.b64encode(path.read_bytes()).decode()}
        for path, heading in draw(fits, folder, var_names=var_names).items()
    ]
    comparison = table(fits, var_names=var_names)
    headings, rows = cells(comparison)
    page = Environment(autoescape=True).from_string(files("inference").joinpath(PAGE).read_text("utf-8"))
    content = page.render(
        title=title,
        diagnoses=[diagnose(fit) for fit in fits.values()],
        headings=headings,
        rows=rows,
        pictures=shown,
        runs={name: json.dumps(json.loads(as_json(fit.info)), indent=1) for name, fit in fits.items()},
    )
    with _beside(folder / PAGE) as path:
        path.write_text(content, encoding="utf-8")
    return folder / PAGE


def draw(
    fits: Mapping[str, Fit] | Sequence[Fit],
    folder: str | Path,
    *,
    var_names: Sequence[str] | None = None,
) -> dict[Path, str]:
    """Write the pictures that each fit's method allows into a folder that is there; return their headings."""
    written = {}
    for file, heading, picture in _pictures(named(fits), var_names):
        try:
            figure = picture()
        except Unsupported:
            continue  # this method has nothing of the kind: a point no ranks, an optimiser no energy
        path = Path(folder) / f"{file}.png"
        with _beside(path) as temporary:
            figure.savefig(temporary, format="png")
        written[path] = heading
    return written


def _pictures(
    fits: Mapping[str, Fit], var_names: Sequence[str] | None
) -> Iterator[tuple[str, str, Callable[[], Figure]]]:
    """Each picture's file, heading, and how to draw it."""
    yield "compare", TITLES["compare"], lambda: plots.compare(fits, var_names)
    yield "objective", TITLES["objective"], lambda: plots.objective(fits)
    kinds: dict[str, Callable[[Fit], Figure]] = {
        "ellipses": plots.ellipses,
        "predictive": plots.predictive,
        "trace": lambda fit: plots.trace(fit, var_names),
        "ranks": lambda fit: plots.ranks(fit, var_names),
        "evolution": lambda fit: plots.evolution(fit, var_names),
        "energy": plots.energy,
    }
    for name, fit in fits.items():
        for kind, draw in kinds.items():
            yield f"{_file(name)}_{kind}", f"{name}: {TITLES[kind].lower()}", _bound(draw, fit)


def _bound(draw: Callable[[Fit], Figure], fit: Fit) -> Callable[[], Figure]:
    return lambda: draw(fit)


def _file(name: str) -> str:
    """A fit's name, as a file's."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


@contextmanager
def _beside(path: Path) -> Iterator[Any]:
    """A path to write to, which takes its place only when all went well."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
