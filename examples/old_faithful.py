# %% [markdown]
# # Old Faithful: one model, five ways to its posterior
#
# 272 eruptions of a geyser: how long each lasted, and how long one waited for the next. Two kinds of eruption
# seem to alternate. A mixture of two Gaussians says so; how sure are we of the two means, and of the shares?
#
# EM and the mode give a point, Laplace and SVI a Gaussian in unconstrained coordinates, MCMC the posterior itself.

# %%
from pathlib import Path

from rich.console import Console

from inference import Fit, em, laplace, mcmc, mode, svi
from inference.check import render, table
from inference.report import write
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.datasets import old_faithful

SITES = ("weights", "loc", "covariance")


def main(folder: str | Path = "runs/old_faithful", num_chains: int = 8, num_samples: int = 1000) -> dict[str, Fit]:
    """Fit the mixture by five methods, print them side by side, and write fits and pictures into the folder."""
    data, console = old_faithful(), Console(width=130)
    model = GaussianMixture.for_data(data.observed["x"], components=2, ordered=True)

    fits = {
        "em": em.fit(model, data, seed=1, prior=True, progress_bar=True),
        "mode": mode.fit(model, data, seed=1, progress_bar=True),
        "laplace": laplace.fit(model, data, seed=1, progress_bar=True),
        "svi": svi.fit(model, data, seed=1, guide="full-rank", progress_bar=True),
        "mcmc": mcmc.fit(
            model, data, seed=1, num_chains=num_chains, num_samples=num_samples, save_warmup=True, progress_bar=True
        ),
    }

    console.print(render(table(fits, var_names=list(SITES)), title="Old Faithful: five posteriors side by side"))
    for fit in fits.values():
        console.print(fit.diagnose())
    page = write(fits, folder, title="Old Faithful", var_names=list(SITES))
    console.print(f"Pictures and fits are in {page.parent}; open {page}.")
    return fits


# %%
if __name__ == "__main__":
    main()
