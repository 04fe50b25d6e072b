# %% [markdown]
# # How much does a Hopfield network remember?
#
# N units, K random patterns. By Hebb's rule the overlap of what is recalled with what was stored falls off a
# cliff near K = 0.138 N, as mean-field theory says; the larger the network, the sharper. Real images resemble one
# another, and Hebb's rule confuses them long before; the pseudo-inverse and a dense memory do not.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from sklearn.datasets import load_digits

from ppmodels.memory.capacity import critical_load, mean_field_overlap
from ppmodels.memory.dense import DenseMemory, Interaction
from ppmodels.memory.learning import hebb, pseudo_inverse

LOADS = [0.04, 0.07, 0.10, 0.12, 0.13, 0.14, 0.15, 0.16, 0.18, 0.20, 0.25]


def overlap(units: int, load: float, seed: int) -> float:
    """Return the mean overlap of 50 stored patterns with where recall from them ends."""
    generator = torch.Generator().manual_seed(seed)
    x = 2.0 * torch.randint(2, (round(load * units), units), generator=generator) - 1
    return float((hebb(x).recall(x[:50]).state * x[:50]).mean())


def draw_capacity(folder: Path, sizes: tuple[int, ...]) -> None:
    """Simulated overlaps against the load, with the mean-field curve."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    fine = torch.linspace(0.02, 0.25, 400).tolist()
    axes.plot(fine, [mean_field_overlap(a) for a in fine], color="black", label="mean field, N infinite")
    for units in sizes:
        axes.plot(LOADS, [overlap(units, a, seed=1) for a in LOADS], "o-", ms=4, alpha=0.8, label=f"N = {units}")
    axes.axvline(critical_load()[0], color="grey", lw=0.8, ls=":", label=f"K = {critical_load()[0]:.3f} N")
    axes.set(xlabel="load K / N", ylabel="overlap with the stored pattern", ylim=(0, 1.03))
    axes.legend()
    figure.savefig(folder / "capacity.png", dpi=130)
    plt.close(figure)


def draw_digits(folder: Path) -> dict[str, float]:
    """Ten digits, a fifth of their pixels flipped, and what three memories make of them."""
    images, labels = load_digits(return_X_y=True)
    x = torch.stack([torch.as_tensor(images[labels == k][0]) for k in range(10)]).gt(7).double() * 2 - 1
    flips = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    cue = torch.where(flips, -x, x)
    rows = {"stored": x, "cue": cue, "Hebb": hebb(x).recall(cue).state}
    rows["pseudo-inverse"] = pseudo_inverse(x).recall(cue).state
    rows["dense, exp"] = DenseMemory(x, Interaction("exponential")).recall(cue).state
    figure, axes = plt.subplots(len(rows), 10, figsize=(8, 4.4), layout="constrained")
    for line, (name, states) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for cell, state in zip(line, states, strict=True):
            cell.imshow(state.reshape(8, 8), cmap="Greys", vmin=-1, vmax=1)
            cell.set(xticks=[], yticks=[])
    figure.savefig(folder / "digits.png", dpi=130)
    plt.close(figure)
    return {name: float((states == x).all(-1).double().mean()) for name, states in rows.items()}


def main(folder: str | Path = "runs/hopfield_capacity", sizes: tuple[int, ...] = (250, 1000)) -> dict[str, float]:
    """Draw both pictures into the folder; return which share of the digits each memory brought back whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    draw_capacity(folder, sizes)
    recalled = draw_digits(folder)
    console = Console()
    console.print("Digits brought back whole: ", recalled)
    console.print(f"Pictures are in {folder}.")
    return recalled


# %%
if __name__ == "__main__":
    main()
