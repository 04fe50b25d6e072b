"""Laplace of a network: log likelihood, time and memory beside laplace-torch on the same tasks."""

import importlib.util
import resource
import subprocess
import sys
import time
import warnings

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from inference import laplace
from inference.laplace.network import Network
from inference.outcomes import log_predictive
from ppmodels.base import Data
from ppmodels.regression.bnn import BayesianNeuralNetwork

MANY = 100  # outputs of the network whose diagonal is taken


def main() -> None:
    """Read the command line and run."""
    tyro.cli(compare, description=__doc__)


def compare(only: str = "") -> None:
    """Print the tables; one thread, processor time.

    Args:
        only: "likelihood" or "memory"; none means both.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if only in ("", "likelihood"):
        _table("Laplace on diabetes, 10-50-1, 90 % of the rows", _laplace(), ("log likelihood", "s"))
    if only in ("", "memory"):
        _table(f"Diagonal Laplace, 64-50-{MANY}, 500 rows", _memory(), ("MB", "s"))


def _laplace() -> list[tuple[str, ...]]:
    """Test log likelihood of both libraries' Gauss-Newton posteriors, prior and noise tuned by the evidence."""
    from sklearn.datasets import load_diabetes

    x, y = (torch.as_tensor(v) for v in load_diabetes(return_X_y=True))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[: round(0.9 * len(x))], order[round(0.9 * len(x)) :]
    x, y = (x - x[train].mean(0)) / x[train].std(0), (y - y[train].mean()) / y[train].std()
    rows = []
    data = [Data(len(part), {"x": x[part]}, {"y": y[part]}) for part in (train, test)]
    model = BayesianNeuralNetwork(features=10, hidden=(50,), noise=0.7)
    for structure in ("ggn", "kfac", "diagonal"):
        began = time.process_time()
        fit = laplace.fit(
            model, data[0], structure=structure, num_restarts=2, tuned=("scale", "noise"), num_samples=500
        )
        score = float(log_predictive(fit, data[1]).mean())
        rows.append((f"ours, {structure}", f"{score:.3f}", f"{time.process_time() - began:.1f}"))
    if importlib.util.find_spec("laplace"):
        for structure in ("full", "kron", "diag"):
            began = time.process_time()
            score = _theirs(x[train].float(), y[train].float(), x[test].float(), y[test].float(), structure)
            rows.append((f"laplace-torch, {structure}", f"{score:.3f}", f"{time.process_time() - began:.1f}"))
    return rows


def _theirs(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, structure: str) -> float:
    """laplace-torch as its documentation has it: a trained network, then prior and noise by marginal likelihood."""
    from laplace import Laplace
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(10, 50), nn.Tanh(), nn.Linear(50, 1))
    descent = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(1000):
        descent.zero_grad()
        nn.functional.mse_loss(network(x)[:, 0], y).backward()
        descent.step()
    la = Laplace(network, "regression", subset_of_weights="all", hessian_structure=structure)
    la.fit(DataLoader(TensorDataset(x, y[:, None]), batch_size=len(x)))
    log_prior, log_sigma = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    ascent = torch.optim.Adam([log_prior, log_sigma], lr=1e-1)
    for _ in range(100):
        ascent.zero_grad()
        (-la.log_marginal_likelihood(log_prior.exp(), log_sigma.exp())).backward()
        ascent.step()
    mean, variance = la(x_test)
    sd = (variance[:, 0, 0] + la.sigma_noise.detach().square()).sqrt()
    return float(torch.distributions.Normal(mean[:, 0], sd).log_prob(y_test).mean())


def _memory() -> list[tuple[str, ...]]:
    """Peak memory above the data's, in a process of its own."""
    rows = []
    for who in ("nothing", "ours", "laplace-torch"):
        if who == "laplace-torch" and not importlib.util.find_spec("laplace"):
            continue
        words = [sys.executable, "-W", "ignore", "-c", f"from benchmarks.laplace import _diagonal; _diagonal({who!r})"]
        found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        rows.append((who, found[0], found[1]))
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
    table = Table(title=title, box=box.SIMPLE)
    for heading in ("", *headings):
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
