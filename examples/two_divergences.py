# %% [markdown]
# # Breast cancer: what a simple guide says of two weights that lean on one another
#
# A tumour's radius and its perimeter tell nearly the same, so their weights in a logistic regression are known
# together and not apart. Independent normals cannot say so. Reverse KL makes them too narrow, forward KL keeps each
# one's width, and the linear response of fixed draws mends what reverse KL took away. The reference is MCMC. And
# which gradient goes there: along the path of each draw, or by scoring draws?

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from rich.console import Console
from sklearn.datasets import load_breast_cancer

from inference import Fit, laplace, mcmc, svi
from inference.base import fresh, joint
from inference.density import Density
from inference.svi.ascent import score_gradient
from inference.svi.guides import MeanField
from ppmodels.base import Data
from ppmodels.classification.logistic import LogisticRegression

WAYS = {
    "reverse KL, path gradient": {},
    "reverse KL, natural gradient": {"gradient": "natural"},
    "reverse KL, fixed draws": {"gradient": "fixed"},
    "reverse KL, score gradient": {"gradient": "score", "num_steps": 3000},
    "forward KL": {"divergence": "forward"},
    "reverse KL, full rank": {"guide": "full-rank", "gradient": "natural"},
}
DRAWS = (2, 4, 8, 16, 32, 64)


def main(folder: str | Path = "runs/two_divergences") -> dict[str, Fit]:
    """Fit guides in six ways, set them beside MCMC, and measure the noise of two gradients."""
    source, path, console = load_breast_cancer(), Path(folder), Console(width=110)
    path.mkdir(parents=True, exist_ok=True)
    x = torch.tensor(source.data)[:120, [0, 2]]
    model = LogisticRegression(features=2, spread=3.0)
    data = Data(120, {"x": (x - x.mean(0)) / x.std(0)}, {"y": torch.tensor(source.target)[:120].double()})

    fits = {"MCMC": mcmc.fit(model, data, num_chains=32, num_samples=250, seed=1)}
    fits |= {"Laplace": laplace.fit(model, data, num_samples=4000, seed=1)}
    fits |= {name: svi.fit(model, data, seed=1, num_samples=4000, **options) for name, options in WAYS.items()}
    for name, fit in fits.items():
        coef = fit.draws["coef"].flatten(0, 1)[:, 1:]
        bound = f", ELBO {fit.info['elbo']:.3f} after {fit.info['steps']} steps" if "elbo" in fit.info else ""
        rho = float(torch.corrcoef(coef.T)[0, 1])
        console.print(f"{name:32} sds {coef.std(0)[0]:.2f} and {coef.std(0)[1]:.2f}, correlation {rho:+.2f}{bound}")
    mended = fits["reverse KL, fixed draws"].state["linear_response"][1:, 1:]
    console.print(f"{'by linear response':32} sds {mended[0, 0].sqrt():.2f} and {mended[1, 1].sqrt():.2f}")
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
    ellipses(axes[0], fits, mended)
    noise(axes[1], model, data, fits["reverse KL, path gradient"])
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path / "two_divergences.png", dpi=150)
    plt.close(figure)
    console.print(f"The picture is {path / 'two_divergences.png'}.")
    return fits


def ellipses(axis: Axes, fits: dict[str, Fit], mended: torch.Tensor) -> None:
    """The posterior's draws, and each guide at two sds."""
    cloud = fits["MCMC"].draws["coef"].flatten(0, 1)[:, 1:]
    axis.scatter(*cloud[::3].T, s=3, color="0.8", label="MCMC")
    shown = {
        "reverse KL": "reverse KL, path gradient",
        "forward KL": "forward KL",
        "full rank": "reverse KL, full rank",
    }
    for i, (label, name) in enumerate(shown.items()):
        coef = fits[name].draws["coef"].flatten(0, 1)[:, 1:]
        axis.plot(*outline(coef.mean(0), coef.T.cov()), color=f"C{i}", lw=1.8, label=label)
    mean = fits["reverse KL, fixed draws"].draws["coef"].flatten(0, 1)[:, 1:].mean(0)
    axis.plot(*outline(mean, mended), color="C3", ls="--", lw=1.6, label="reverse KL, linear response")
    axis.set(xlabel="weight of radius", ylabel="weight of perimeter", title="guides at two sds")


def outline(mean: torch.Tensor, covariance: torch.Tensor) -> np.ndarray:
    """An ellipse at two sds, (2, 200)."""
    angle = torch.linspace(0, 2 * torch.pi, 200).to(mean)
    circle = torch.stack([angle.cos(), angle.sin()])
    return (mean[:, None] + 2 * torch.linalg.cholesky(covariance) @ circle).numpy()


def noise(axis: Axes, model: LogisticRegression, data: Data, fit: Fit, repeats: int = 400) -> None:
    """Sds of both gradients a little beside the best guide, by the number of draws."""
    guide, found = MeanField(3), {"score gradient": [], "path gradient": []}
    with fresh(model, (data,), seed=0) as own:
        density = Density.of(joint(own, (data,), {}), (data,), {})
        start = guide.start(fit.state["phi"][None, :3] + 0.3, fit.state["phi"][None, 3:]).expand(repeats, -1)
        for draws in DRAWS:
            eps = torch.randn(repeats, draws, 3)
            x, log_q = guide.draw(start, eps)
            log_p, grad = density.batched(repeats * draws, compile=False)(x.flatten(0, 1))
            by_score = score_gradient(log_p.reshape(log_q.shape) - log_q, guide.score(eps))
            by_path = guide.gradient(start, eps, grad.reshape(x.shape))
            for name, each in zip(found, (by_score, by_path), strict=True):
                found[name].append(float(each.std(0).norm()))
    for name, values in found.items():
        axis.loglog(DRAWS, values, "o-", ms=4, label=name)
    axis.set(xlabel="draws a step", ylabel="sd of the gradient, norm over parameters", title="noise of two gradients")
    axis.set_xticks(DRAWS, [str(n) for n in DRAWS])
    axis.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axis.minorticks_off()


# %%
if __name__ == "__main__":
    main()
