"""`python -m benchmarks [NAME] [flags]`: run a benchmark; without a name, say which there are."""

import ast
import importlib
import sys
from pathlib import Path

import tyro

FOLDER = Path(__file__).parent


def main() -> None:
    """Run the benchmark that the command line names."""
    name, *flags = sys.argv[1:] or [""]
    there = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    if not name:
        for each in there:
            first = (ast.get_docstring(ast.parse((FOLDER / f"{each}.py").read_text())) or "").splitlines()[0]
            print(f"{each:12} {first}")
        return
    if name not in there:
        sys.exit(f"no benchmark {name!r}; there are: {', '.join(there)}")
    sys.argv = [f"benchmarks {name}", *flags]
    benchmark = importlib.import_module(f"benchmarks.{name}")
    tyro.cli(benchmark.compare, description=benchmark.__doc__)


if __name__ == "__main__":
    main()
