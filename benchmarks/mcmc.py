"""Markov chain Monte Carlo: effective draws a second, ours and peers', side by side on the same posteriors."""

from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._mcmc import start_child, tables
from benchmarks._mcmc.problems import names
from benchmarks._mcmc.samplers import SAMPLERS
from benchmarks._record import load, machine

PACKAGES = ("torch", "pyro-ppl", "numpyro", "jax", "pymc", "nutpie", "pystan")


def compare(
    problem: tuple[str, ...] = (),
    sampler: tuple[str, ...] = (),
    limit: float = 900.0,
    out: Path | None = None,
    agree: bool = False,
) -> None:
    """Run every sampler on every posterior, each in a process of its own, and print a table.

    Args:
        problem: posteriors by name; none means all that are at hand.
        sampler: samplers by a part of their name; none means all.
        limit: seconds for one sampler on one posterior, cold and warm run together.
        out: a file for the tables as text.
        agree: only check that the peers' densities are the same as the Pyro program's.
    """
    console = Console(record=True, width=176)
    console.print(f"{machine(*PACKAGES)}; float64, one thread\n{load()}")
    chosen = [name for name in SAMPLERS if not sampler or any(part in name for part in sampler)]
    rows: dict[str, dict[str, Any]] = {}
    for name in problem or names():
        found = {each: start_child.run(each, name, limit, *(["agree"] if agree else [])) for each in chosen}
        rows[name] = found
        console.print(tables.agreement(name, found) if agree else tables.posterior(name, found))
    if not agree:
        console.print(tables.ratios(rows))
        console.print(tables.NOTES)
    console.print(load())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(console.export_text())
