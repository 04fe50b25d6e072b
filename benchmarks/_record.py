"""What stands around a table: the machine and the versions that it was measured with, and a file that keeps it."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from pathlib import Path


@contextmanager
def recorded(out: Path | None, *packages: str) -> Iterator[None]:
    """Print the machine and these packages' versions, then what is printed inside; all of it goes into `out` too."""
    tee = _Tee()
    with redirect_stdout(tee):
        print(machine(*packages), load(), sep="\n", end="\n\n", flush=True)
        yield
        print(f"\n{load()}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("".join(tee.text))


def machine(*packages: str) -> str:
    """Where and with what this is measured."""
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return f"Python {platform.python_version()}, {processor()}{os.cpu_count()} cores; {', '.join(versions)}"


def processor() -> str:
    """Its name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((f"{line.partition(':')[2].strip()}, " for line in lines if line.startswith("model name")), "")


def load() -> str:
    """How busy the machine is: figures from a loaded one are worth less."""
    return f"{time.strftime('%Y-%m-%d %H:%M')}, load average {' '.join(f'{x:.1f}' for x in os.getloadavg())}"


class _Tee:
    """Standard output that remembers what was written."""

    def __init__(self) -> None:
        self.text, self.screen = list[str](), sys.stdout

    def write(self, text: str) -> int:
        self.text.append(text)
        return self.screen.write(text)

    def flush(self) -> None:
        self.screen.flush()
