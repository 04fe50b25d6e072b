"""Warm-up over many chains at once: what one chain learns from a thousand draws, a thousand chains learn from one.

Each turn moves every chain; the mean acceptance over the chains tunes the step, and the chains' positions
tune the metric. A few hundred turns are enough, where a single chain takes a thousand.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.mcmc.chains import Chains, Kernel, Tuned
from inference.mcmc.metric import learn


def harmonic(acceptance: Tensor, least: float = 1e-3) -> float:
    """Harmonic mean over the chains, (C,): it hears the few chains in narrow places, where the mean does not."""
    return float(1.0 / (1.0 / acceptance.nan_to_num(nan=0.0).clamp(min=least)).mean())


@dataclass
class StepSize:
    """Robbins-Monro on log(step size), towards a mean acceptance; averaged over the last turns."""

    log_step: float
    target: float
    turn: int = 0
    mean: float = 0.0
    weight: float = 0.0

    def update(self, acceptance: float) -> float:
        """Return the next step size to try."""
        self.turn += 1
        rate = min(0.5, 5.0 / (self.turn + 5) ** 0.6)
        self.log_step += rate * (acceptance - self.target)
        self.weight = 0.9 * self.weight + 0.1
        self.mean += 0.1 / self.weight * (self.log_step - self.mean)
        return math.exp(self.log_step)

    def restart(self) -> None:
        """Move freely again: the metric has changed under the step."""
        self.turn, self.mean, self.weight = 0, 0.0, 0.0


@dataclass
class Window:
    """Positions and gradients of the last turns, thinned so that all together are a bounded number."""

    most: int = 20_000
    draws: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)

    def add(self, chains: Chains) -> None:
        self.draws.append(chains.x)
        self.grads.append(chains.grad)

    def pooled(self, turns: int) -> tuple[Tensor, Tensor]:
        """The last turns of all chains, each (n, dim)."""
        every = max(1, turns * len(self.draws[0]) // self.most)
        draws, grads = self.draws[-turns::every], self.grads[-turns::every]
        self.draws, self.grads = self.draws[-turns:], self.grads[-turns:]
        return torch.cat(draws), torch.cat(grads)


def warm_up(
    kernel: Kernel,
    chains: Chains,
    tuned: Tuned,
    turns: int,
    target: float,
    watch: Callable[[int, Chains, dict[str, Tensor], Tuned], None],
) -> tuple[Chains, Tuned]:
    """Move the chains `turns` times and tune step size and metric on the way.

    The metric is learned anew from the last half of the turns so far, at turns that grow by half; the last
    seventh of the turns only tunes the step. A kernel that tunes more than that has `adapt(tuned) -> Tuned`,
    and one that averages acceptance over the chains in its own way `acceptance(rates, progress) -> float`.
    """
    adapt, accepted = getattr(kernel, "adapt", None), getattr(kernel, "acceptance", lambda rates, _: harmonic(rates))
    step, window = StepSize(math.log(tuned.step_size), target), Window()
    next_metric = max(4, min(20, turns // 8))
    for turn in range(turns):
        chains, stats = kernel(chains, tuned, turn)
        watch(turn, chains, stats, tuned)
        window.add(chains)
        tuned = tuned.with_step(step.update(accepted(stats["acceptance_rate"], turn / turns)))
        tuned = adapt(tuned) if adapt is not None else tuned
        if turn + 1 == next_metric and turn + 1 <= turns - turns // 7:
            draws, grads = window.pooled(max(2, (turn + 1) // 2))
            tuned = Tuned(tuned.step_size, tuned.length, learn(draws, grads))
            step.restart()
            next_metric = max(next_metric + 2, int(next_metric * 1.5))
    return chains, tuned.with_step(math.exp(step.mean))
