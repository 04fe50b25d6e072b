"""Generative models, one a file, a folder a family. The folder is the catalogue."""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

from ppmodels.base import Data, HasEM, HasGuide, HasLabels, HasNetwork, HasPosterior, Model

__all__ = ["Data", "HasEM", "HasGuide", "HasLabels", "HasNetwork", "HasPosterior", "Model", "load", "names"]


def names() -> list[str]:
    """Return every model's name, which is its file's name."""
    return sorted(_files())


def load(name: str) -> Callable[..., Model]:
    """Return the one public model class of the file of that name.

    Raises: KeyError when there is no such file.
    """
    files = _files()
    if name not in files:
        raise KeyError(f"no model {name!r}; there are: {', '.join(sorted(files))}")
    module = importlib.import_module(files[name])
    own = [c for k, c in vars(module).items() if _is_model(c, module.__name__) and not k.startswith("_")]
    (cls,) = own
    return cls


def _files() -> dict[str, str]:
    """Model files by name: those of a family's folder that hold a class with a `model`."""
    root = Path(__file__).parent
    families = [f for f in pkgutil.iter_modules([str(root)]) if f.ispkg and f.name not in {"base", "nn", "datasets"}]
    found = {}
    for family in families:
        for file in pkgutil.iter_modules([str(root / family.name)]):
            text = (root / family.name / f"{file.name}.py").read_text(encoding="utf-8")
            if not file.name.startswith("_") and "    def model(self, data: Data)" in text:
                found[file.name] = f"{__name__}.{family.name}.{file.name}"
    return found


def _is_model(value: object, module: str) -> bool:
    return isinstance(value, type) and value.__module__ == module and hasattr(value, "model")
