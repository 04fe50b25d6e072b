# %% [markdown]
# # Iris: how many kinds of flower, and how to get to the top
#
# 150 flowers, four measurements each, three species that nobody tells the model. Which covariances, and how many
# clusters? BIC prices parameters; the evidence bound of a Bayesian mixture needs no price. And how does one get to
# the top of a likelihood: by EM, by EM that extrapolates, or along the gradient?

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from sklearn.datasets import load_iris

from inference import em, plots, svi
from inference.base import joint
from inference.em.problem import Problem
from inference.pointwise import assignments
from ppmodels.base import Data
from ppmodels.clustering.dirichlet_process import DirichletProcessMixture
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.clustering.selection import criteria

FAMILIES = ("full", "tied", "diagonal", "spherical")
COMPONENTS = range(1, 6)


def main(folder: str | Path = "runs/iris_clusters") -> dict[str, float]:
    """Choose a mixture by BIC and by the evidence bound, climb to its top in three ways, and draw all of it."""
    source, console, path = load_iris(), Console(width=110), Path(folder)
    x = torch.tensor(source.data)
    units = {"petal length": "cm", "petal width": "cm"}
    coords = {"feature": tuple(name.removesuffix(" (cm)") for name in source.feature_names)}
    data = Data(len(x), observed={"x": x}, coords=coords, units=units)
    path.mkdir(parents=True, exist_ok=True)

    bic, bound = numbers(x, data)
    best = min(bic, key=lambda key: bic[key])
    console.print(f"BIC takes {best[1]} clusters, {best[0]}; the evidence bound {max(bound, key=lambda k: bound[k])}")
    fit = em.fit(GaussianMixture.for_data(x, components=3), data)
    plots.ellipses(fit, columns=(2, 3)).savefig(path / "ellipses.png")
    picture(bic, bound, assignments(fit)["z"], source, climbs(fit.model, data)).savefig(path / "iris.png", dpi=150)
    console.print(f"Pictures are in {path}.")
    return {f"{family} {k}": value for (family, k), value in bic.items()}


def numbers(x: torch.Tensor, data: Data) -> tuple[dict[tuple[str, int], float], dict[int, float]]:
    """BIC of each family and number of clusters, and the evidence bound of each number."""
    bic, bound = {}, {}
    for family in FAMILIES:
        for k in COMPONENTS:
            model = GaussianMixture.for_data(x, components=k, covariance=family)
            fit = em.fit(model, data, num_restarts=4)
            bic[family, k] = criteria(model, {name: value[0, 0] for name, value in fit.draws.items()}, data).bic
    for k in COMPONENTS:
        model = DirichletProcessMixture.for_data(x, components=k, weights="finite")
        bound[k] = svi.fit(model, data, guide="blocks", num_samples=1).info["elbo"]
    return bic, bound


def climbs(model: GaussianMixture, data: Data) -> dict[str, torch.Tensor]:
    """Nats below the top after each pass over the rows, all from one start."""
    problem = Problem(model, data, joint(model, (data,), {}), False)
    torch.manual_seed(0)
    start = model.start(data)
    flat = problem.flatten(start).requires_grad_()
    search = torch.optim.LBFGS([flat], max_iter=150, max_eval=150, line_search_fn="strong_wolfe")
    seen: list[float] = []

    def downhill() -> torch.Tensor:
        search.zero_grad()
        loss = -model.e_step(problem.unflatten(flat, start), data)[1]
        loss.backward()
        seen.append(-float(loss.detach()))
        return loss

    search.step(downhill)
    paths = {"gradient (L-BFGS)": torch.tensor(seen)}
    for name, accelerate in (("EM", False), ("EM, extrapolated", True)):
        climb = em.Climb(problem, 150, 1e-13, accelerate).climb(start)
        paths[name] = torch.tensor([point.log_likelihood for point in climb.points])
    top = max(float(path.max()) for path in paths.values())
    return {name: top - path for name, path in paths.items()}


def picture(bic, bound, membership, source, paths) -> plt.Figure:  # noqa: ANN001
    """Numbers of clusters, memberships, and climbs."""
    figure, axes = plt.subplots(1, 4, figsize=(15.5, 3.8), layout="constrained")
    for family in FAMILIES:
        axes[0].plot(COMPONENTS, [bic[family, k] for k in COMPONENTS], "o-", ms=4, label=family)
    axes[0].set(xlabel="clusters", ylabel="BIC (lower is better)", xticks=list(COMPONENTS), title="price of parameters")
    axes[0].legend(frameon=False)
    axes[1].plot(list(bound), list(bound.values()), "ko-", ms=4)
    axes[1].set(xlabel="clusters", ylabel="nats (higher is better)", xticks=list(COMPONENTS), title="evidence bound")
    order = torch.tensor(source.target).argsort(stable=True)
    image = axes[2].imshow(
        membership[order].T.numpy(), aspect="auto", cmap="Greys", vmin=0, vmax=1, interpolation="none"
    )
    axes[2].set(xlabel="flower", ylabel="cluster", yticks=range(3), title="responsibilities")
    axes[2].set_xticks([25, 75, 125], source.target_names)
    for edge in (49.5, 99.5):
        axes[2].axvline(edge, color="C3", lw=1)
    figure.colorbar(image, ax=axes[2], label="probability")
    for name, gap in paths.items():
        axes[3].semilogy(gap.clamp(min=1e-9), lw=1.4, label=f"{name}: {len(gap)} passes")
    axes[3].set(xlabel="pass over the rows", ylabel="nats below the best top", title="three ways up, one start")
    axes[3].legend(frameon=False, fontsize=7.5, loc="upper right")
    axes[3].set_ylim(1e-10, 1e4)
    figure.get_layout_engine().set(w_pad=0.12)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure


# %%
if __name__ == "__main__":
    main()
