# %% [markdown]
# # Which posterior of a neural network can be believed?
#
# One network, one prior, the same rows; six ways to a posterior, and an exact Gaussian process beside. Without a
# folder it is scikit-learn's diabetes; with one, as `main("../shared/data/uci/yacht", num_splits=5)`, a data set on
# its published splits, where the rows that papers print are shown too. And away from the data: who admits ignorance?

# %%
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from arviz_stats.base.array import array_stats
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_diabetes
from torch import Tensor

from inference import bayes_by_backprop, dropout, ensemble, laplace, mcmc, mode, plots
from inference.outcomes import Outcomes, log_predictive, outcomes
from ppmodels.base import Data
from ppmodels.datasets.splits import Split, Splits
from ppmodels.kernels.gp import GaussianProcess
from ppmodels.regression.bnn import BayesianNeuralNetwork

# The joint mode of weights and noise follows every row; the evidence says how wide and how noisy a network is.
BY_EVIDENCE = {"structure": "ggn", "tuned": ("scale", "noise"), "num_restarts": 2, "num_samples": 300, "tol": 1e-2}
WAYS = {
    "HMC": lambda m, d, warmup=150, samples=100: mcmc.fit(m, d, num_chains=4, num_warmup=warmup, num_samples=samples),
    "Laplace, by evidence": lambda m, d: laplace.fit(replace(m, noise=0.5, scale=(1.0,)), d, **BY_EVIDENCE),
    "VI, Bayes by backprop": lambda m, d: bayes_by_backprop.fit(m, d, num_steps=5000, num_samples=300),
    "ensemble of ten": lambda m, d: ensemble.fit(m, d, num_steps=4000),
    "MC dropout": lambda m, d: dropout.fit(m, d, rate=0.05, num_steps=4000),
}
PUBLISHED = {  # RMSE and log likelihood over 20 splits: papers' own networks, with 50 rectified units
    "yacht": {"PBP": (1.02, -1.63), "MC dropout, Gal": (0.67, -1.25), "deep ensembles": (1.58, -1.18)},
    "energy": {"PBP": (1.80, -2.04), "MC dropout, Gal": (0.54, -1.21), "deep ensembles": (2.09, -1.38)},
    "concrete": {"PBP": (5.67, -3.16), "MC dropout, Gal": (4.82, -2.93), "deep ensembles": (6.03, -3.06)},
}


def diabetes() -> Splits:
    """Return diabetes with ten splits of our own, nine rows of ten for training."""
    x, y = (torch.as_tensor(v) for v in load_diabetes(return_X_y=True))
    orders = [torch.randperm(len(x), generator=torch.Generator().manual_seed(k)) for k in range(10)]
    return Splits("diabetes", x, y, tuple((o[44:], o[:44]) for o in orders))


def gaussian_process(split: Split) -> tuple[Tensor, Tensor]:
    """Return the mean and log density of the test rows by a process at its most probable scales."""
    x = split.train.given["x"]
    model = GaussianProcess(dim=x.shape[1], lengthscale=3.0)
    scales = {name: draws[0, 0] for name, draws in mode.fit(model, split.train, num_restarts=2).draws.items()}
    function = model.regression(scales, split.train)
    mean = function.predict(split.test.given["x"])
    variance = scales["amplitude"].square() * function.variance(split.test.given["x"]) + scales["noise"].square()
    return mean, torch.distributions.Normal(mean, variance.sqrt()).log_prob(split.test.observed["y"])


def scores(splits: Splits, num_splits: int, hmc: tuple[int, int]) -> dict[str, list[tuple[float, ...]]]:
    """Return RMSE, log likelihood, seconds, and of HMC the predictions' median R-hat, of every way on every split."""
    features = splits.x.shape[1]
    model = BayesianNeuralNetwork(features=features, hidden=(50,), scale=(math.sqrt(features), 1.0))
    found: dict[str, list[tuple[float, ...]]] = {}
    ways = WAYS | {"HMC": lambda m, d: WAYS["HMC"](m, d, *hmc)}
    for split in (splits[k] for k in range(num_splits)):
        began = time.process_time()
        mean, density = gaussian_process(split)
        row = split.rmse(mean), split.log_likelihood(density), time.process_time() - began, math.nan
        found.setdefault("Gaussian process, exact", []).append(row)
        for name, way in ways.items():
            began = time.process_time()
            fit = way(model, split.train)
            seen, density = outcomes(fit, split.test), log_predictive(fit, split.test)
            row = split.rmse(seen.location), split.log_likelihood(density), time.process_time() - began, mixing(seen)
            found.setdefault(name, []).append(row)
    return found


def mixing(seen: Outcomes) -> float:
    """Return the median R-hat of the predicted means over rows: weights are not identified, predictions are."""
    if len(seen.mean) < 2:
        return math.nan
    return float(torch.as_tensor(array_stats.rhat(seen.mean.numpy(), chain_axis=0, draw_axis=1)).median())


def draw_gap(folder: Path) -> None:
    """Twenty rows on either side of a gap, and what each way says inside it and beyond."""
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.rand(20, generator=generator) - 2, torch.rand(20, generator=generator) + 0.5]).double()
    y = (2 * x).sin() + 0.1 * torch.randn(40, generator=generator)
    data = Data(40, {"x": x[:, None]}, {"y": y})
    model = BayesianNeuralNetwork(hidden=(20,), scale=(2.0, 1.0))
    grid = torch.linspace(-4, 4, 161).double()
    figure = plots.bands({name: way(model, data) for name, way in WAYS.items()}, Data(161, {"x": grid[:, None]}), grid)
    figure.savefig(folder / "gap.png", dpi=130)


def main(
    source: str | Path | None = None,
    num_splits: int = 1,
    folder: str | Path = "runs/bnn_table",
    gap: bool = True,
    hmc: tuple[int, int] = (150, 100),
) -> dict[str, list[tuple[float, ...]]]:
    """Print the table, and draw the gap; return each way's scores on each split. hmc: warm-up and draws a chain."""
    folder, console = Path(folder), Console()
    folder.mkdir(parents=True, exist_ok=True)
    splits = diabetes() if source is None else Splits.read(source)
    found = scores(splits, num_splits, hmc)
    table = Table("way", title=f"{splits.name}, {num_splits} splits, test rows in the unit of y")
    for heading in ("RMSE", "log likelihood", "CPU s a split", "R-hat of predictions"):
        table.add_column(heading, justify="right")
    for name, rows in found.items():
        rmse, score, seconds, rhat = torch.tensor(rows).mean(0).tolist()
        name = f"HMC, 4 chains of {hmc[0]} + {hmc[1]}" if name == "HMC" else name
        table.add_row(name, f"{rmse:.3f}", f"{score:.3f}", f"{seconds:.1f}", "" if math.isnan(rhat) else f"{rhat:.2f}")
    for name, (rmse, score) in PUBLISHED.get(splits.name, {}).items():
        table.add_row(f"{name} (published)", f"{rmse:.2f}", f"{score:.2f}", "", "")
    console.print(table)
    if gap:
        draw_gap(folder)
        console.print(f"A picture of what each way says in a gap is in {folder}.")
    return found


# %%
if __name__ == "__main__":
    main()
