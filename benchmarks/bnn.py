"""Bayesian networks: a step beside Pyro's, plain Adam's, and SGLD beside posteriors."""

import importlib.util
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks._clock import timed
from benchmarks._record import recorded
from inference.base import fresh, joint
from inference.bayes_by_backprop import _loss
from inference.density import Density
from inference.density.minibatch import Minibatches
from inference.stochastic_gradient.plan import Plan
from inference.stochastic_gradient.run import Run
from inference.training import Training
from inference.training.minibatches import minibatch
from ppmodels.base import Data
from ppmodels.regression.bnn import BayesianNeuralNetwork

ROWS, FEATURES, HIDDEN, BATCH = 455, 13, 50, 100


def compare(steps: int = 300, out: Path | None = None) -> None:
    """Print the table; one thread, processor time.

    Args:
        steps: of each timing.
        out: a file that keeps what is printed.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with recorded(out, "torch", "pyro-ppl", "posteriors"):
        _table(steps)


def _table(steps: int) -> None:
    table = Table(title="A step, 13-50-1, 455 rows, batch 100, float32", box=box.SIMPLE)
    for heading in ("", "ms", "target"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in _steps(steps):
        table.add_row(*row)
    Console(width=110).print(table)


def _steps(number: int) -> list[tuple[str, ...]]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(ROWS, FEATURES, generator=generator), torch.randn(ROWS, generator=generator)
    model, data = BayesianNeuralNetwork(features=FEATURES, hidden=(HIDDEN,)), Data(ROWS, {"x": x}, {"y": y})
    with fresh(model, (data,)):
        adam, svi = _adam(x, y, number), _svi(model, data, number)
        ours = _by_backprop(model, data, 10 * number)
        ratios = f"{svi / ours:.1f} x faster than Pyro (5), {ours / adam:.2f} of Adam (3)"
        rows = [("plain network, Adam (fused)", f"{adam:.3f}", "")]
        rows += [("Pyro SVI, AutoNormal", f"{svi:.3f}", ""), ("Bayes by backprop, one draw", f"{ours:.3f}", ratios)]
        rows.append(("SGLD, 32 chains, a chain-step", f"{_sgld(model, data, number):.4f}", "0.06"))
        if importlib.util.find_spec("posteriors"):
            rows.append(("posteriors' SGLD, a step", f"{_posteriors(x, y, number):.4f}", ""))
        eager, batched = _gradients(model, data, number)
        rows.append(("potential and gradient, Pyro", f"{eager:.3f}", ""))
        rows.append(("the same a chain, 32 chains", f"{batched:.4f}", f"{eager / batched:.1f} x faster (5)"))
    return rows


def _adam(x: Tensor, y: Tensor, number: int) -> float:
    network = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
    descent = torch.optim.Adam(network.parameters(), fused=True)

    def step(t: int) -> None:
        rows = minibatch(ROWS, BATCH, t, 0)
        assert rows is not None
        descent.zero_grad()
        (network(x[rows])[:, 0] - y[rows]).square().mean().backward()
        descent.step()

    return _milliseconds(step, number)


def _svi(model: Any, data: Data, number: int) -> float:
    def told(batch: Data) -> None:
        pyro.condition(model.model, data=dict(batch.observed))(batch)

    guide = pyro.infer.autoguide.AutoNormal(told)
    svi = pyro.infer.SVI(told, guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())

    def step(t: int) -> None:
        rows = minibatch(ROWS, BATCH, t, 0)
        assert rows is not None
        svi.step(data.batch(rows))

    return _milliseconds(step, number)


def _by_backprop(model: Any, data: Data, number: int) -> float:
    """A step of the library's own training loop, all of it."""
    target = Minibatches.of(model, (data,), {}, chains=1, batch_size=BATCH, compile=True)
    phi = torch.stack([torch.randn(target.density.dim) * 0.3, torch.full((target.density.dim,), -3.0)])
    phi.requires_grad_()

    def run(steps: int) -> None:
        training = Training(steps, 1e-3, rows=ROWS, batch_size=BATCH)
        training.run(lambda rows: _loss(target, rows, phi, 1), lambda: {"phi": phi})

    run(10)
    return 1e3 * timed(lambda: run(number))[0] / number


def _sgld(model: Any, data: Data, number: int) -> float:
    plan = Plan(0, "sgld", 10, 0, 32, 1, BATCH, 1e-5, 0.1, 1.0, "constant", 1, False)
    run = Run.begin(Minibatches.of(model, (data,), {}, chains=32, batch_size=BATCH, compile=True), plan)
    return _milliseconds(lambda t: run._move(1e-5, 1.0), number) / 32


def _posteriors(x: Tensor, y: Tensor, number: int) -> float:
    import posteriors

    network = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))

    def log_posterior(parameters: Any, batch: Any) -> Any:
        found = torch.func.functional_call(network, parameters, (batch[0],))[:, 0]
        prior = posteriors.diag_normal_log_prob(parameters) / ROWS
        return -0.5 * (found - batch[1]).square().mean() + prior, found

    transform = posteriors.sgmcmc.sgld.build(log_posterior, lr=1e-5, temperature=1 / ROWS)
    state = [transform.init(dict(network.named_parameters()))]

    def step(t: int) -> None:
        rows = minibatch(ROWS, BATCH, t, 0)
        assert rows is not None
        state[0] = transform.update(state[0], (x[rows], y[rows]), inplace=False)[0]

    return _milliseconds(step, number)


def _gradients(model: Any, data: Data, number: int) -> tuple[float, float]:
    program = joint(model, (data,), {})
    start, potential, *_ = pyro.infer.mcmc.util.initialize_model(program, (data,))
    pyro_step = partial(pyro.ops.integrator.potential_grad, potential, start)
    batched = Density.of(program, (data,), {}).batched(32, compile=True)
    x = 0.3 * torch.randn(32, batched(torch.randn(32, Density.of(program, (data,), {}).dim))[1].shape[1])
    return _milliseconds(lambda t: pyro_step(), number), _milliseconds(lambda t: batched(x), number) / 32


def _milliseconds(step: Callable[[int], Any], number: int) -> float:
    for t in range(5):
        step(t)

    def run() -> None:
        for t in range(number):
            step(t)

    return 1e3 * timed(run)[0] / number
