# %% [markdown]
# # Who drives whom: the wiring of a simulated population, and how sure we are of it
#
# Eight neurons with a few planted connections fire for five minutes. One coupled model is fitted; its posterior is a
# product over the neurons that receive, and Laplace's approximation takes seconds. Which signs come back, and does a
# simulation from the posterior look like the data?

# %%
import math
from pathlib import Path

import torch
from rich.console import Console

from inference import laplace
from inference.plots.population import couplings, filters, raster
from ppmodels.base import Data
from ppmodels.population.couplings import CouplingMatrix, coupling_matrix
from ppmodels.population.cross_validation import cross_validate, expected
from ppmodels.population.glm import CoupledGLM
from ppmodels.population.rollouts import branching_ratio, rollout

NEURONS, BIN = 8, 0.005
PLANTED = {(0, 1): 1, (2, 0): -1, (3, 2): 1, (4, 3): -1, (5, 4): 1, (6, 7): -1, (7, 5): 1}  # (onto, from): sign


def simulate(rows: int, seed: int = 0) -> tuple[CoupledGLM, Data, torch.Tensor]:
    """Return the model, rows of five seconds, and the planted signs, (N, N)."""
    model = CoupledGLM(NEURONS, 0, BIN, (0, 0.0), (4, 0.05), (4, 0.05), rate=15.0, scale=0.5)
    signs = torch.zeros(NEURONS, NEURONS, dtype=torch.float64)
    for (post, pre), sign in PLANTED.items():
        signs[post, pre] = sign
    off = ~torch.eye(NEURONS, dtype=torch.bool)
    shape = torch.tensor([0.3, 0.15, 0.05, 0.0], dtype=torch.float64)
    theta = {
        "baseline": torch.full((NEURONS,), math.log(15.0), dtype=torch.float64),
        "history_weight": torch.tensor([-0.8, -0.3, -0.1, 0.0], dtype=torch.float64).expand(NEURONS, 4),
        "coupling_weight": signs[off].reshape(NEURONS, NEURONS - 1)[..., None] * shape,
    }
    bins = round(5 / BIN)
    given = {"stimulus": torch.zeros(rows, bins, 0), "past": torch.zeros(rows, 10, NEURONS)}
    given = {name: value.double() for name, value in given.items()} | {"seen": torch.ones(rows, bins, NEURONS)}
    counts = rollout(model, theta, Data(rows, given), seed=seed)
    names = tuple("ABCDEFGH")
    lags = [round(1000 * BIN * lag) / 1000 for lag in range(1, 11)]
    coords = {"neuron": names, "post": names, "pre": names, "lag": lags}
    return model, Data(rows, given, {"counts": counts}, coords=coords), signs


def main(folder: str | Path = "runs/coupled_population", rows: int = 60) -> CouplingMatrix:
    """Fit, print what was found, and draw filters, couplings and a raster into the folder."""
    console, place = Console(), Path(folder)
    model, data, signs = simulate(rows)
    fit = laplace.fit(model, data, num_samples=500, seed=1)
    console.print(fit.diagnose())
    matrix = coupling_matrix(fit.draws["coupling_filter"])
    right = int(((matrix.sign == signs) & (signs != 0)).sum())
    console.print(f"{right} of {len(PLANTED)} planted signs are found with 97.5% probability")
    cells = {"coupled": model, "alone": CoupledGLM(NEURONS, 0, BIN, (0, 0.0), (4, 0.05), rate=15.0, coupling=(0, 0.0))}
    for name, own in cells.items():
        held, _ = cross_validate(lambda m, d: laplace.fit(m, d, num_samples=50), own, data, 5, draws=20)
        console.print(f"{name}: {held.total_bits_per_spike:.3f} bits a spike, held out; null: {held.null}")
    theta = {name: value[0, 0] for name, value in fit.draws.items()}
    rates = data.observed["counts"].mean((0, 1)) / BIN
    again = rollout(model, theta, data, seed=2).mean((0, 1)) / BIN
    console.print(f"rates {rates.mean():.1f} Hz, simulated again {again.mean():.1f} Hz; ", end="")
    console.print(f"a spike causes {branching_ratio(model, theta, rates):.2f} others")
    place.mkdir(parents=True, exist_ok=True)
    couplings(fit).savefig(place / "couplings.png")
    filters(fit, "history_filter").savefig(place / "history.png")
    mean = expected(model, fit.draws, data, 20) / BIN
    raster(data.observed["counts"], mean, BIN, names=data.coords["neuron"]).savefig(place / "raster.png")
    console.print(f"Pictures are in {place}.")
    return matrix


# %%
if __name__ == "__main__":
    main()
