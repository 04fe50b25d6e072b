"""Wall seconds, and processor seconds of this process and all that it started: a shared machine disturbs these less."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Seconds:
    """How long something took."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def timed() -> Iterator[Seconds]:
    """Yield what is filled in at the end."""
    seconds, wall, cpu = Seconds(), time.perf_counter(), processor_seconds()
    yield seconds
    seconds.wall, seconds.cpu = time.perf_counter() - wall, processor_seconds() - cpu


def processor_seconds() -> float:
    """User and system time of this process, of children that ended, and, on Linux, of those that still run."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + _running()


def _running() -> float:
    """Of living descendants, with what they themselves waited for; 0 where there is no /proc."""
    parent, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        pid = int(path.parent.name)
        parent[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    ours = [pid for pid in parent if pid != os.getpid() and os.getpid() in _line(pid, parent)]
    return sum(ticks[pid] for pid in ours) / os.sysconf("SC_CLK_TCK")


def _line(pid: int, parent: dict[int, int]) -> list[int]:
    """The process's ancestors."""
    line = []
    while pid in parent:
        pid = parent[pid]
        line.append(pid)
    return line
