"""Hopfield recall at N = 2000 beside one matrix product a sweep, at several loads and numbers of cues."""

import time
from collections.abc import Callable

import torch

from ppmodels.memory._sweep import sweep
from ppmodels.memory.learning import hebb

UNITS = 2000


def main() -> None:
    """Print the table; one thread, float32, least processor time of several runs, milliseconds a sweep."""
    torch.set_num_threads(1)
    print(f"N = {UNITS}, Hebb's weights, cues with a tenth of their bits wrong; ms a sweep over all cues")
    print(f"{'load':>6} {'cues':>6} {'product':>9} {'synchronous':>12} {'ratio':>6} {'asynchronous':>13} {'ratio':>6}"
          f" {'at rest':>8} {'ratio':>6} {'overlap':>8}")  # fmt: skip
    for load in (0.05, 0.1, 0.13):
        for cues in (10, 100):
            line(load, min(cues, round(load * UNITS)))


def line(load: float, cues: int) -> None:
    """One load and number of cues."""
    generator = torch.Generator().manual_seed(0)
    x = 2.0 * torch.randint(2, (round(load * UNITS), UNITS), generator=generator) - 1
    network = hebb(x)
    wrong = torch.rand(cues, UNITS, generator=generator) < 0.1
    cue = torch.where(wrong, -x[:cues], x[:cues])
    done = network.recall(cue)
    product = best(lambda: cue @ network.weights.mT)
    together = (
        best(lambda: network.recall(cue, "synchronous", sweeps=4)) / network.recall(cue, "synchronous", sweeps=4).sweeps
    )
    one_by_one = best(lambda: network.recall(cue)) / done.sweeps
    rest = done.state.clone()
    at_rest = best(lambda: sweep(network.weights, network.bias, rest, (-1.0, 1.0)))
    overlap = float((done.state * x[:cues]).mean())
    print(f"{load:>6} {cues:>6} {product:>9.2f} {together:>12.2f} {together / product:>6.2f} {one_by_one:>13.2f} "
          f"{one_by_one / product:>6.2f} {at_rest:>8.2f} {at_rest / product:>6.2f} {overlap:>8.4f}")  # fmt: skip


def best(run: Callable[[], object], runs: int = 7) -> float:
    """The least processor time of several runs after one that warms up, in milliseconds."""
    run()
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return 1e3 * min(seconds)


if __name__ == "__main__":
    main()
