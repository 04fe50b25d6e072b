"""Laplace of a network: log likelihood, time and memory beside laplace-torch on the same tasks."""

import importlib.util
import math
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks._clock import milliseconds, timed
from benchmarks._record import recorded
from inference import laplace
from inference.base import conditioned, fresh
from inference.density import Density
from inference.laplace.network import Network
from inference.laplace.structures import Curvature
from inference.outcomes import log_predictive
from ppmodels.base import Data
from ppmodels.regression.bnn import BayesianNeuralNetwork

MANY = 100  # outputs of the network whose diagonal is taken
SPLITS = 3
STRUCTURES = {"ggn": "full", "kfac": "kron", "diagonal": "diag"}  # ours, and the peer's name of the same


def compare(only: str = "", out: Path | None = None) -> None:
    """Print the tables; one thread, processor time.

    Args:
        only: "likelihood", "curvature" or "memory"; none means all.
        out: a file that keeps what is printed.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with recorded(out, "torch", "pyro-ppl", "laplace-torch"):
        if only in ("", "likelihood"):
            title = f"Laplace on diabetes, 10-50-1; prior and noise by the evidence; {SPLITS} splits, each once warm"
            _table(title, _likelihood(), ("test log likelihood", "each split", "s, all of it"))
        if only in ("", "curvature"):
            _table("Curvature, factor and evidence at one network, 398 rows", _curvature(), ("ms", "ratio"))
        if only in ("", "memory"):
            _table(f"Diagonal Laplace, 64-50-{MANY}, 500 rows", _memory(), ("MB", "s"))


@dataclass(frozen=True)
class Rows:
    """A split of diabetes, standardised by its training rows."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    @classmethod
    def of(cls, seed: int) -> "Rows":
        """The split of this seed, nine rows of ten for training."""
        from sklearn.datasets import load_diabetes

        x, y = (torch.as_tensor(v) for v in load_diabetes(return_X_y=True))
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        train, test = order[: round(0.9 * len(x))], order[round(0.9 * len(x)) :]
        x, y = (x - x[train].mean(0)) / x[train].std(0), (y - y[train].mean()) / y[train].std()
        return cls(x[train], y[train], x[test], y[test])

    def single(self) -> "Rows":
        """The same in single precision, which laplace-torch works in."""
        return Rows(*(value.float() for value in (self.x, self.y, self.x_test, self.y_test)))


def _likelihood() -> list[tuple[str, ...]]:
    """Test log likelihood of both libraries' Gauss-Newton posteriors, prior and noise tuned by the evidence."""
    ways: dict[str, Callable[[Rows], float]] = {}
    for held, when in ((True, "after"), (False, "while")):
        ways |= {f"ours {when} training, {s}": partial(_ours, structure=s, post_hoc=held) for s in STRUCTURES}
    if importlib.util.find_spec("laplace"):
        peer = "laplace-torch after training"
        ways |= {f"{peer}, {s}": partial(_after_training, structure=s) for s in STRUCTURES.values()}
        ways["laplace-torch while training, kron"] = _while_training
    rows, splits = [], [Rows.of(seed) for seed in range(SPLITS)]
    for name, way in ways.items():
        way(splits[0])  # what a process loads once is not counted, of either
        found = [timed(partial(way, split)) for split in splits]
        seconds, scores = (list(each) for each in zip(*found, strict=True))
        told = " ".join(f"{score:.3f}" for score in scores)
        rows.append((name, f"{statistics.fmean(scores):.3f}", told, f"{statistics.fmean(seconds):.2f}"))
    return rows


def _ours(rows: Rows, structure: str, post_hoc: bool) -> float:
    """One climb, then the evidence's with the mode held; or mode and evidence in turn until both stand still."""
    model = BayesianNeuralNetwork(features=10, hidden=(50,), noise=0.7)
    data, test = (Data(len(x), {"x": x}, {"y": y}) for x, y in ((rows.x, rows.y), (rows.x_test, rows.y_test)))
    options: dict[str, Any] = {"num_restarts": 1, "tuned": ("scale", "noise"), "num_samples": 500, "tol": 1e-2}
    fit = laplace.fit(model, data, structure=structure, post_hoc=post_hoc, **options)
    return float(log_predictive(fit, test).mean())


def _after_training(rows: Rows, structure: str) -> float:
    """laplace-torch as its documentation has it: a trained network, then prior and noise by marginal likelihood."""
    from laplace import Laplace

    rows = rows.single()
    la: Any = Laplace(_trained(rows), "regression", subset_of_weights="all", hessian_structure=structure)
    la.fit(_loader(rows.x, rows.y[:, None]))
    log_prior, log_sigma = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    ascent = torch.optim.Adam([log_prior, log_sigma], lr=1e-1)
    for _ in range(100):
        ascent.zero_grad()
        (-la.log_marginal_likelihood(log_prior.exp(), log_sigma.exp())).backward()
        ascent.step()
    return _score(la, rows)


def _while_training(rows: Rows) -> float:
    """Its other way, with its own structure: weights, prior and noise in turn, a prior precision for each layer."""
    from laplace import marglik_training
    from laplace.curvature import CurvlinopsGGN

    rows = rows.single()
    torch.manual_seed(0)
    la, *_ = marglik_training(
        _network(), _loader(rows.x, rows.y[:, None]), "regression", "kron", CurvlinopsGGN,
        optimizer_kwargs={"lr": 1e-2}, n_epochs=1000, n_epochs_burnin=100, marglik_frequency=50, n_hypersteps=50,
    )  # fmt: skip
    return _score(la, rows)


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 50), nn.Tanh(), nn.Linear(50, 1))


def _trained(rows: Rows) -> nn.Module:
    torch.manual_seed(0)
    network = _network()
    descent = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(1000):
        descent.zero_grad()
        nn.functional.mse_loss(network(rows.x)[:, 0], rows.y).backward()
        descent.step()
    return network


def _loader(x: Tensor, y: Tensor) -> Any:
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(x, y), batch_size=len(x))


def _score(la: Any, rows: Rows) -> float:
    """The peer's own predictive normal at the test rows."""
    mean, variance = la(rows.x_test)
    sd = (variance[:, 0, 0] + la.sigma_noise.detach().square()).sqrt()
    return float(torch.distributions.Normal(mean[:, 0], sd).log_prob(rows.y_test).mean().detach())


def _curvature() -> list[tuple[str, ...]]:
    """Curvature, factor and evidence of the same network on the same rows, in single precision."""
    rows = Rows.of(0).single()
    network, found = _trained(rows), []
    model = BayesianNeuralNetwork(features=10, hidden=(50,), noise=0.7)
    weights = dict(zip((n for n, _ in model.module.named_parameters()), network.parameters(), strict=True))
    data = Data(len(rows.x), {"x": rows.x}, {"y": rows.y})
    with fresh(model, (data,)):
        density = Density.of(conditioned(model), (data,), {})
    x = density.unconstrain({name: value.detach() for name, value in weights.items()})

    def ours(structure: str) -> float:
        with fresh(model, (data,)):
            half = Curvature(density, x, model).around(structure).half_log_det()
            return float(density.log_prob(x).detach()) + 0.5 * len(x) * math.log(2 * math.pi) - half

    def theirs(structure: str) -> Tensor:
        from laplace import Laplace

        options: dict[str, Any] = {"subset_of_weights": "all", "hessian_structure": structure, "sigma_noise": 0.7}
        la: Any = Laplace(network, "regression", **options)
        la.fit(_loader(rows.x, rows.y[:, None]))
        return la.log_marginal_likelihood()

    for mine, other in STRUCTURES.items():
        spent = milliseconds(partial(ours, mine), 5)
        found.append((f"ours, {mine}", f"{spent:.1f}", ""))
        if importlib.util.find_spec("laplace"):
            peer = milliseconds(partial(theirs, other), 5)
            found.append((f"laplace-torch, {other}", f"{peer:.1f}", f"{peer / spent:.1f} x ours"))
    return found


def _memory() -> list[tuple[str, ...]]:
    """Peak memory above the data's, in a process of its own."""
    rows = []
    for who in ("nothing", "ours", "laplace-torch"):
        if who == "laplace-torch" and not importlib.util.find_spec("laplace"):
            continue
        words = [sys.executable, "-W", "ignore", "-c", f"from benchmarks.laplace import _diagonal; _diagonal({who!r})"]
        rows.append((who, *subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[:2]))
    base = float(rows[0][1])
    return [(name, f"{float(peak) - base:.0f}", seconds) for name, peak, seconds in rows[1:]]


def _diagonal(who: str) -> None:
    """Print peak megabytes and seconds of a diagonal Gauss-Newton matrix."""
    torch.set_num_threads(1)
    x, y = torch.randn(500, 64), torch.randint(MANY, (500,))
    model = BayesianNeuralNetwork(features=64, hidden=(50,), likelihood="categorical", classes=MANY)
    network = nn.Sequential(nn.Linear(64, 50), nn.Tanh(), nn.Linear(50, MANY))
    if importlib.util.find_spec("laplace"):
        from laplace import Laplace
        from torch.utils.data import DataLoader, TensorDataset
    began = time.process_time()
    if who == "ours":
        weights = dict(zip((n for n, _ in model.module.named_parameters()), network.parameters(), strict=True))
        Network(model, {n: w.detach() for n, w in weights.items()}, {}, Data(500, {"x": x}, {"y": y})).diagonal()
    elif who == "laplace-torch":
        la = Laplace(network, "classification", subset_of_weights="all", hessian_structure="diag")
        la.fit(DataLoader(TensorDataset(x, y), batch_size=100))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak:.1f} {time.process_time() - began:.2f}")


def _table(title: str, rows: list[tuple[str, ...]], headings: tuple[str, ...]) -> None:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for heading in ("", *headings):
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
