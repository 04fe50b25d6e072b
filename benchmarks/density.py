"""Value and gradient: the compiled batch and the replayed graph beside the Pyro program itself, run eagerly."""

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import _record
from benchmarks._mcmc.problems import load, names
from inference.base import fresh, joint
from inference.density import Density

CHAINS = (1, 256, 1024)
SECONDS = 0.5  # processor time of one measurement


def compare(problem: tuple[str, ...] = (), out: Path | None = None) -> None:
    """Print microseconds of processor time a chain and gradient, for each posterior.

    Args:
        problem: posteriors by name; none means all that are at hand.
        out: a file for the table as text.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    console = Console(record=True, width=150)
    table = Table(box=box.SIMPLE, title="µs a chain, log density and gradient, float64, one thread")
    heads = [f"{kind} {chains}" for chains in CHAINS for kind in ("compiled", "replay")]
    for head in ("posterior", "dim", "Pyro", *heads, "Pyro / compiled 1", "Pyro / best", "compile s"):
        table.add_column(head, justify="left" if head == "posterior" else "right")
    for name in problem or names():
        table.add_row(name, *_row(name))
    console.print(table)
    if "poisson_glm" in (problem or names()):
        console.print(_products())
    console.print(f"{_record.machine('torch', 'pyro-ppl')}\n{_record.load()}")
    if out is not None:
        out.write_text(console.export_text())


def _row(name: str) -> list[str]:
    problem = load(name)
    with fresh(problem.model, problem.args) as own:
        density = Density.of(joint(own, problem.args, {}), problem.args)
        x = 0.3 * torch.randn(max(CHAINS), density.dim, generator=torch.Generator().manual_seed(0))
        eager = _microseconds(lambda: density.value_and_grad(x[0]))
        cells, times, compile_seconds = [], [], 0.0
        for chains in CHAINS:
            points = x[:chains].mT.contiguous().mT  # chains innermost, as the samplers keep them
            start = time.process_time()
            compiled = density.batched(chains, compile=True)
            compiled(points)
            compile_seconds = max(compile_seconds, time.process_time() - start)
            both = [_microseconds(lambda f=f, q=points: f(q)) / chains for f in (compiled, compiled.once)]
            mark = "" if compiled.executor == "inductor" else "*"
            cells += [f"{both[0]:.2f}{mark}", f"{both[1]:.2f}"]
            times += [both[0]]
    ahead = [f"{eager / times[0]:.0f}", f"{eager / min(times):.0f}", f"{compile_seconds:.1f}"]
    return [str(density.dim), f"{eager:.0f}", *cells, *ahead]


def _products() -> Table:
    """The GLM beside what it cannot do without: the product with its design, and with its transpose."""
    table = Table(
        box=box.SIMPLE, title="Poisson GLM: one gradient of all chains, in ms, beside the two matrix products"
    )
    for head in ("chains", "compiled", "replay", "two products", "compiled / products", "exp alone"):
        table.add_column(head, justify="right")
    problem = load("poisson_glm")
    X = problem.args[0]
    with fresh(problem.model, problem.args) as own:
        density = Density.of(joint(own, problem.args, {}), problem.args)
        for chains in (1, 4, 64, 256):
            points = 0.1 * torch.randn(density.dim, chains).mT
            batched = density.batched(chains, compile=True)
            beta, rate = points[:, 1:].mT.contiguous(), torch.rand(len(X), chains)

            def products(beta: Tensor = beta, rate: Tensor = rate) -> Any:
                return X @ beta, X.mT @ rate

            times = [
                _microseconds(run) / 1e3
                for run in (
                    lambda b=batched, p=points: b(p),
                    lambda b=batched, p=points: b.once(p),
                    products,
                    lambda r=rate: r.exp(),
                )
            ]
            ratio = f"{times[0] / times[2]:.2f}"
            table.add_row(str(chains), *(f"{ms:.2f}" for ms in times[:3]), ratio, f"{times[3]:.2f}")
    return table


def _microseconds(run: Callable[[], Any]) -> float:
    """The least mean processor time of five rounds, after one that warms up."""
    run()
    start = time.process_time()
    run()
    calls = max(1, int(SECONDS / 5 / max(time.process_time() - start, 1e-6)))
    rounds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(calls):
            run()
        rounds.append((time.process_time() - start) / calls)
    return 1e6 * min(rounds)
