# %% [markdown]
# # Diabetes: how sure can a likelihood be
#
# How far the disease had gone in forty patients, a positive number each. A Gamma law has a shape and a scale; the
# likelihood has a top, and falls away from it. How fast it falls is the information: Wald's interval takes the fall
# for a parabola, the profile follows it. With few rows they differ: a simulation says on which side each misses the
# truth, where an honest interval of 95% misses it 2.5 times in a hundred on either.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from rich.console import Console
from sklearn.datasets import load_diabetes

from inference import Fit, mode, plots
from ppmodels.parametric.continuous import Gamma
from ppmodels.parametric.estimate import maximum_likelihood

PATIENTS = 40
SIZES = (8, 12, 20, 40, 80)


def progression(x: torch.Tensor) -> None:
    """A Gamma law by shape and scale; the priors are left out of a likelihood."""
    shape = pyro.sample("shape", dist.LogNormal(0.0, 2.0))
    scale = pyro.sample("scale", dist.LogNormal(3.0, 2.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Gamma(shape, 1 / scale), obs=x)


def main(folder: str | Path = "runs/how_sure", repeats: int = 600) -> dict[str, Fit]:
    """Fit by maximum likelihood, draw the profiles, and count how often each interval misses the truth."""
    path, console = Path(folder), Console(width=110)
    path.mkdir(parents=True, exist_ok=True)
    x = torch.tensor(load_diabetes().target)[:PATIENTS]
    fit = mode.fit(progression, x, prior=False)
    errors, robust = fit.standard_errors(), fit.standard_errors(kind="sandwich")
    for site in ("shape", "scale"):
        console.print(
            f"{site}: {float(fit.draws[site]):.3g}, standard error {float(errors[site]):.2g}, "
            f"by the sandwich {float(robust[site]):.2g}"
        )
    names = ["shape", "scale (score of progression)"]
    plots.profiles(fit, ["shape", "scale"], names=names).savefig(path / "profiles.png")
    truth = torch.stack([fit.draws["shape"].flatten()[0], fit.draws["scale"].flatten()[0]])
    drawn(x, fit, misses(truth, repeats)).savefig(path / "misses.png", dpi=150)
    console.print(f"Pictures are in {path}.")
    return {"mode": fit}


def misses(truth: torch.Tensor, repeats: int) -> dict[str, list[float]]:
    """How often intervals of 95% lie above or below the shape, in data sets drawn at the truth."""
    torch.manual_seed(0)
    missed: dict[str, list[float]] = {}
    for size in SIZES:
        x = torch.distributions.Gamma(truth[0], 1 / truth[1]).sample((repeats, size))
        found = maximum_likelihood(Gamma(), x)
        for name, ends in (("Wald", found.wald()), ("profile", found.profile())):
            low, high = ends[:, 0].unbind(-1)
            for side, wrong in (("too high", low > truth[0]), ("too low", high < truth[0])):
                missed.setdefault(f"{name}, {side}", []).append(float(wrong.double().mean()))
    return missed


def drawn(x: torch.Tensor, fit: Fit, missed: dict[str, list[float]]) -> plt.Figure:
    """The data with the law, and how often intervals miss the truth."""
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.6), layout="constrained")
    grid = torch.linspace(1, 360, 300, dtype=torch.float64)
    shape, scale = (float(fit.draws[name]) for name in ("shape", "scale"))
    axes[0].hist(x.numpy(), bins=12, density=True, color="0.85", label=f"{len(x)} patients")
    axes[0].plot(grid, dist.Gamma(shape, 1 / scale).log_prob(grid).exp(), label="Gamma, best shape and scale")
    axes[0].set(xlabel="score of progression after a year", ylabel="density", ylim=(0, 0.0092))
    for i, (name, shares) in enumerate(missed.items()):
        axes[1].plot(SIZES, shares, ("o-", "o--")[i % 2], color=f"C{i // 2}", ms=4, label=name)
    axes[1].axhline(0.025, color="0.6", lw=0.8, label="as promised")
    axes[1].set(xlabel="rows", ylabel="share of intervals that miss the shape", xscale="log", ylim=(0, 0.12))
    axes[1].yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axes[1].set_xticks(SIZES, [str(n) for n in SIZES])
    axes[1].minorticks_off()
    for axis in axes:
        axis.legend(frameon=False, fontsize=8, loc="upper right")
        axis.spines[["top", "right"]].set_visible(False)
    return figure


# %%
if __name__ == "__main__":
    main()
