# %% [markdown]
# # Do fifteen cells say more together than one by one?
#
# The words of spikes and silence that 15 cells speak in a bin: how much of their structure is in the rates, how
# much in pairs, and how much is left? The pairwise maximum-entropy model answers exactly, over all 2^15 words, and
# a posterior says which couplings are there. With the recording of maxent_toolbox (MIT) in the folder that
# `SHARED` names, it is that; without, cells are simulated.

# %%
import math
import os
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import torch
from rich.console import Console
from torch import Tensor

from inference import em, laplace
from ppmodels import Data
from ppmodels.population.ising import Ising
from ppmodels.population.maximum_entropy import PairwiseMaximumEntropy


def spikes() -> tuple[Tensor, str]:
    """Return words (B, 15) of 0 and 1, and where they are from."""
    here = Path(__file__).resolve().parents[2] / "shared"
    file = Path(os.environ.get("SHARED", here), "data", "maxent_toolbox", "example15.mat")
    if file.exists():
        with h5py.File(file) as recording:
            return torch.tensor(recording["spikes15"][:]).double(), "recorded"
    torch.manual_seed(0)
    cells = PairwiseMaximumEntropy(torch.randn(15).double() - 2, 0.4 * torch.randn(105).double())
    return cells.sample(40_000), "simulated"


def main(folder: str | Path = "runs/fifteen_cells", cells: int = 15, draws: int = 400) -> dict[str, float]:
    """Print three entropies of the words, and draw the couplings with what is known of their signs."""
    words, origin = spikes()
    words = words[:, :cells]
    y = words[: len(words) // 100 * 100].reshape(100, -1, cells)  # blocks of bins, as trials
    model = Ising.for_data(y, center=-2.0, bias_scale=3.0, coupling_scale=1.0)
    data = Data.of(model, y=y)
    top = em.fit(model, data, num_restarts=1, prior=True)
    theta = {name: value[0, 0] for name, value in top.draws.items()}
    share = torch.bincount((words @ (2.0 ** torch.arange(cells)).double()).long()) / len(words)
    alone = words.mean(0).clamp(1e-9, 1 - 1e-9)
    bits = {
        "each cell alone": float(-(alone * alone.log2() + (1 - alone) * (1 - alone).log2()).sum()),
        "rates and pairs": float(model.law(theta).entropy()) / math.log(2),
        "the words themselves": float(-(share[share > 0] * share[share > 0].log2()).sum()),
    }
    sure = laplace.fit(model, data, num_samples=draws, num_restarts=1).draws["coupling"][0]  # (draws, pairs)
    positive = (sure > 0).double().mean(0)

    console = Console(width=100)
    for name, value in bits.items():
        console.print(f"{name:>22}: {value:.3f} bits a word")
    told = (bits["each cell alone"] - bits["rates and pairs"]) / (
        bits["each cell alone"] - bits["the words themselves"]
    )
    console.print(f"Pairs hold {told:.0%} of what is not in the rates; {origin} words.")
    decided = int(((positive > 0.975) | (positive < 0.025)).sum())
    console.print(f"Of {len(positive)} couplings, {decided} have a sign that is known with 97.5%.")
    _picture(sure.mean(0), positive, cells).savefig(_made(folder) / "couplings.png", dpi=150)
    return bits


def _picture(mean: Tensor, positive: Tensor, cells: int) -> plt.Figure:
    """Couplings below the diagonal, the probability that they are positive above it."""
    i, j = torch.triu_indices(cells, cells, 1)
    low, high = torch.full((cells, cells), torch.nan), torch.full((cells, cells), torch.nan)
    low[j, i], high[i, j] = mean.float(), positive.float()
    figure, axis = plt.subplots(figsize=(7.2, 5.0), layout="constrained")
    axis.set_facecolor("0.75")  # the diagonal, where there is no pair
    limit = float(mean.abs().quantile(0.98))
    left = axis.imshow(low, cmap="RdBu_r", vmin=-limit, vmax=limit)
    right = axis.imshow(high, cmap="PRGn", vmin=0, vmax=1)
    figure.colorbar(left, location="left", extend="both", label="below the diagonal: coupling (nats)")
    figure.colorbar(right, label="above the diagonal: P(coupling is positive)")
    axis.set(xlabel="cell", ylabel="cell", xticks=range(cells), yticks=range(cells))
    axis.set_title("Couplings of pairs, and how sure their signs are")
    plt.close(figure)
    return figure


def _made(folder: str | Path) -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


# %%
if __name__ == "__main__":
    main()
