"""Back ends, one a file: each a function `fit(model, *args, seed=0, ...) -> Fit`. The folder is the catalogue."""

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

from inference.base import Fit, Unsupported, threads

__all__ = ["Fit", "Unsupported", "fit", "load", "methods", "stream", "threads", "to_datatree"]


def methods() -> list[str]:
    """Return every back end's name, which is its file's (or folder's) name."""
    return list(_methods())


@cache
def _methods() -> tuple[str, ...]:
    root = Path(__file__).parent
    found = []
    for module in pkgutil.iter_modules([str(root)]):
        file = root / module.name / "__init__.py" if module.ispkg else root / f"{module.name}.py"
        if not module.name.startswith("_") and "\ndef fit(" in file.read_text(encoding="utf-8"):
            found.append(module.name)
    return tuple(sorted(found))


def fit(method: str, model: Any, *args: Any, **options: Any) -> Fit:
    """Fit by the name of the back end: `fit("svi", model, data, seed=1)` is `svi.fit(model, data, seed=1)`."""
    if method not in methods():
        raise KeyError(f"no method {method!r}; there are: {', '.join(methods())}")
    return importlib.import_module(f"inference.{method}").fit(model, *args, **options)


def stream(method: str, model: Any, **options: Any) -> Any:
    """Return what learns from rows that come in pieces: `learn(data)` takes one more, `fit()` says what is known now.

    Raises: Unsupported where this method, or this model with it, needs all rows at once.
    """
    if method not in methods():
        raise KeyError(f"no method {method!r}; there are: {', '.join(methods())}")
    back_end = importlib.import_module(f"inference.{method}")
    if not hasattr(back_end, "Stream"):
        able = [name for name in methods() if hasattr(importlib.import_module(f"inference.{name}"), "Stream")]
        raise Unsupported(f"{method} learns from all rows at once; in pieces do: {', '.join(able)}")
    return back_end.Stream(model, **options)


def to_datatree(fit: Any, **options: Any) -> Any:
    """Return a fit, or a finished `pyro.infer.MCMC`, as an `xarray.DataTree` in ArviZ's schema."""
    return importlib.import_module("inference.datatree").to_datatree(fit, **options)


def load(path: str | Path, **options: Any) -> Fit:
    """Read a fit that `Fit.save` wrote."""
    return importlib.import_module("inference.datatree").load(path, **options)


def __getattr__(name: str) -> Any:
    """Import a back end when it is first asked for: `inference.em` after `import inference`."""
    if name in methods():
        return importlib.import_module(f"inference.{name}")
    raise AttributeError(f"module 'inference' has no attribute {name!r}; back ends: {', '.join(methods())}")
