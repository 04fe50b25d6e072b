"""Hopfield recall at N = 2000 beside one matrix product a sweep, at several loads and numbers of cues."""

from functools import partial
from pathlib import Path

import torch

from benchmarks._clock import milliseconds
from benchmarks._record import recorded
from ppmodels.memory._sweep import sweep
from ppmodels.memory.learning import hebb

UNITS, RUNS = 2000, 7


def compare(out: Path | None = None) -> None:
    """Print the table; one thread, float32, least processor time of several runs, milliseconds a sweep.

    Args:
        out: a file for the table as text.
    """
    torch.set_num_threads(1)
    with recorded(out, "torch"):
        print(f"N = {UNITS}, Hebb's weights, cues with a tenth of their bits wrong; ms a sweep over all cues")
        print(f"{'load':>6} {'cues':>6} {'product':>9} {'synchronous':>12} {'ratio':>6} {'asynchronous':>13} "
              f"{'ratio':>6} {'at rest':>8} {'ratio':>6} {'overlap':>8}")  # fmt: skip
        for load in (0.05, 0.1, 0.13):
            for cues in (1, 10, 100):
                line(load, min(cues, round(load * UNITS)))


def line(load: float, cues: int) -> None:
    """One load and number of cues."""
    generator = torch.Generator().manual_seed(0)
    x = 2.0 * torch.randint(2, (round(load * UNITS), UNITS), generator=generator) - 1
    network = hebb(x)
    wrong = torch.rand(cues, UNITS, generator=generator) < 0.1
    cue = torch.where(wrong, -x[:cues], x[:cues])
    done = network.recall(cue)
    product = milliseconds(lambda: cue @ network.weights.mT, RUNS)
    few = partial(network.recall, cue, "synchronous", sweeps=4)
    together = milliseconds(few, RUNS) / few().sweeps
    one_by_one = milliseconds(lambda: network.recall(cue), RUNS) / done.sweeps
    rest = done.state.clone()
    at_rest = milliseconds(lambda: sweep(network.weights, network.bias, rest, (-1.0, 1.0)), RUNS)
    overlap = float((done.state * x[:cues]).mean())
    print(f"{load:>6} {cues:>6} {product:>9.2f} {together:>12.2f} {together / product:>6.2f} {one_by_one:>13.2f} "
          f"{one_by_one / product:>6.2f} {at_rest:>8.2f} {at_rest / product:>6.2f} {overlap:>8.4f}")  # fmt: skip
