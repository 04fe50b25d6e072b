# %% [markdown]
# # Heart transplants: how long does one live with another's heart, and how sure can 69 patients make us?
#
# Stanford, 1967 to 1974: days from the transplant to death, or to the day on which the books were closed while the
# patient lived on. Such a row is censored: it says that the time was longer, and is lost to whoever drops it. Is the
# risk the same on every day (exponential), or does it fall once the first weeks are over (Weibull, shape below 1)? And
# how much does age matter? Three ways to say how sure: Wald's parabola, the profile, and the posterior.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import statsmodels.api as sm
import torch
from rich.console import Console
from rich.table import Table

from inference import Fit, information, mcmc, mode, plots

NAMES = {"shape": "shape of the risk", "typical": "typical time at 45 (log days)", "ageing": "log time per ten years"}


def survival(days: torch.Tensor, died: torch.Tensor, age: torch.Tensor, constant: bool = False) -> None:
    """Weibull times; who lived on when the books were closed is known to have outlived that day."""
    shape = 1.0 if constant else pyro.sample("shape", dist.LogNormal(0.0, 1.0))
    typical = pyro.sample("typical", dist.Normal(6.0, 3.0))
    ageing = pyro.sample("ageing", dist.Normal(0.0, 1.0))
    scale = (typical + ageing * (age - 45) / 10).exp()
    with pyro.plate("rows", len(days)):
        pyro.sample("days", dist.Weibull(scale, shape).mask(died), obs=days)
        outlived = (-((days / scale) ** shape)).exp()
        pyro.sample("outlived", dist.Bernoulli(outlived).mask(~died), obs=torch.ones_like(days))


def main(folder: str | Path = "runs/heart_transplants") -> dict[str, Fit]:
    """Fit by maximum likelihood and by MCMC, tell how sure each is, and draw survival and profiles."""
    path, console = Path(folder), Console(width=120)
    path.mkdir(parents=True, exist_ok=True)
    table = sm.datasets.heart.load_pandas().data
    days, age = (torch.tensor(table[name].to_numpy()) for name in ("survival", "age"))
    died = torch.tensor(table["censors"].to_numpy() == 1)
    rows = days, died, age

    weibull, constant = mode.fit(survival, *rows, prior=False), mode.fit(survival, *rows, True, prior=False)
    careless = mode.fit(survival, *(each[died] for each in rows), prior=False)
    posterior = mcmc.fit(survival, *rows, seed=0)
    console.print(told(weibull, posterior))
    gain = 2 * (weibull.info["log_density"] - constant.info["log_density"])
    chance = torch.special.erfc(torch.tensor(gain / 2).sqrt())
    console.print(
        f"Weibull against exponential: twice the gain is {gain:.1f}; by chance it is so in {chance:.1g} of times."
    )
    lost = [float(fit.draws["typical"].exp()) for fit in (weibull, careless)]
    console.print(f"Typical time at 45: {lost[0]:.0f} days; {lost[1]:.0f} if the living are left out.")
    plots.profiles(weibull, list(NAMES), names=list(NAMES.values())).savefig(path / "profiles.png", dpi=150)
    names = (NAMES["typical"], NAMES["shape"])
    plots.contours(weibull, "typical", "shape", names=names).savefig(path / "contours.png", dpi=150)
    fits = {"exponential": constant, "Weibull": weibull, "Weibull, the living left out": careless}
    drawn(days, died, fits, posterior).savefig(path / "survival.png", dpi=150)
    console.print(f"Pictures are in {path}.")
    return {"Weibull": weibull, "exponential": constant, "posterior": posterior}


def told(fit: Fit, posterior: Fit) -> Table:
    """Each number with its standard errors and its intervals."""
    table = Table("", "best", "se", "sandwich", "Wald, 95%", "profile, 95%", "posterior, 95%")
    errors, robust, wald = fit.standard_errors(), fit.standard_errors(kind="sandwich"), information.wald(fit)
    for site, name in NAMES.items():
        ends = torch.tensor(information.profile(fit, site)).double()
        draws = posterior.draws[site].flatten().double().quantile(torch.tensor([0.025, 0.975]).double())
        spans = [f"{float(low):.2f} to {float(high):.2f}" for low, high in (wald[site], ends, draws)]
        points = [f"{float(each[site]):.2f}" for each in (fit.draws, errors, robust)]
        table.add_row(name, *points, *spans)
    return table


def drawn(days: torch.Tensor, died: torch.Tensor, fits: dict[str, Fit], posterior: Fit) -> plt.Figure:
    """Survival at 45 by each law, with the posterior's band, over the steps of Kaplan and Meier."""
    figure, axis = plt.subplots(figsize=(7.2, 4.0), layout="constrained")
    known = sm.SurvfuncRight(days.numpy(), died.int().numpy())
    steps = [[0, *known.surv_times, float(days.max())], [1, *known.surv_prob, known.surv_prob[-1]]]
    axis.step(*steps, where="post", color="0.4", lw=1, label="all ages (Kaplan and Meier)")
    lived = days[~died]
    level = torch.tensor([steps[1][sum(t <= float(d) for t in steps[0]) - 1] for d in lived])
    axis.plot(lived, level, "|", color="0.4", ms=7, label="lived on when the books closed")
    grid = torch.linspace(0.5, 1900, 300).double()
    shape, typical = (posterior.draws[site].flatten()[:4000, None] for site in ("shape", "typical"))
    band = (-((grid / typical.exp()) ** shape)).exp().quantile(torch.tensor([0.025, 0.975]).double(), dim=0)
    axis.fill_between(grid, *band, color="C1", alpha=0.15, lw=0, label="Weibull, posterior 95%")
    for i, (name, fit) in enumerate(fits.items()):
        best = float(fit.draws["shape"]) if "shape" in fit.draws else 1.0
        curve = (-((grid / float(fit.draws["typical"].exp())) ** best)).exp()
        axis.plot(grid, curve, color=f"C{i}", ls="--" if i == 2 else "-", label=name)
    axis.set(xlabel="days after the transplant", ylabel="share still alive (laws: at the age of 45)", ylim=(0, 1.02))
    axis.set_xlim(0, 1900)
    axis.legend(frameon=False, fontsize=8, loc="upper right")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


# %%
if __name__ == "__main__":
    main()
