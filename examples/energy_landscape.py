# %% [markdown]
# # What does an associative memory's energy look like?
#
# A continuous Hopfield network in the plane: at a low beta there is one valley, the average of all memories; in between
# a valley for each group; at a high beta one for each memory. Arrows are single updates, which are attention. Along
# the way from one binary memory to another, the steeper its energy, the narrower the wells of a dense network.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from rich.console import Console
from torch import Tensor

from ppmodels.memory.dense import DenseMemory, Interaction
from ppmodels.memory.modern import effective_patterns, energy, retrieve, update

BETAS = (0.1, 1.0, 12.0)
ANGLES = torch.deg2rad(torch.tensor([0.0, 30, 60, 140, 175, 245, 285]).double())
MEMORIES = 2.4 * torch.stack([ANGLES.cos(), ANGLES.sin()], -1)
WELLS = {"n = 2, Hopfield's own": Interaction("polynomial", 2), "n = 3": Interaction("rectified", 3),
         "n = 8": Interaction("rectified", 8), "exponential": Interaction("exponential")}  # fmt: skip


def draw_plane(axes: Axes, beta: float) -> Tensor:
    """Energy, updates as arrows, and where each memory comes to rest; return of how many that is the mean."""
    side = torch.linspace(-3.2, 3.2, 161, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)  # (161, 161, 2)
    e = energy(grid, MEMORIES, beta)
    levels = torch.quantile(e.flatten(), torch.linspace(0, 0.98, 22).double()).tolist()  # equal areas
    axes.contourf(side, side, e, levels=levels, cmap="viridis", extend="max")
    coarse = grid[8::18, 8::18].reshape(-1, 2)
    step = update(coarse, MEMORIES, beta) - coarse
    axes.quiver(*coarse.T, *step.T, color="white", alpha=0.6, width=0.004, scale=30)
    rest = retrieve(MEMORIES, MEMORIES, beta, steps=5000, tol=1e-9).state
    axes.plot(*rest.T, "r*", ms=13, mec="white", mew=0.6, label="at rest")
    axes.plot(*MEMORIES.T, "o", ms=5, color="black", mec="white", mew=0.8, label="memories")
    ends = torch.unique((rest * 1e3).round(), dim=0)
    axes.set(title=f"β = {beta}: {len(ends)} place{'s' * (len(ends) > 1)} to rest", aspect="equal", xlabel="ξ₁")
    return effective_patterns(rest, MEMORIES, beta)


def draw_wells(axes: Axes, units: int = 200, patterns: int = 8) -> None:
    """Energies along a way that flips one memory's bits into another's, each scaled to its own depth."""
    x = 2.0 * torch.randint(2, (patterns, units), generator=torch.Generator().manual_seed(0)).double() - 1
    apart = (x[0] != x[1]).nonzero()[:, 0]
    way = x[0].repeat(len(apart) + 1, 1)
    for step, unit in enumerate(apart.tolist(), 1):
        way[step:, unit] = x[1, unit]
    for name, interaction in WELLS.items():
        e = DenseMemory(x / units**0.5 if interaction.kind == "exponential" else x, interaction).energy(way)
        if interaction.kind == "exponential":  # its energy is given by its logarithm
            e = -(e.min() - e).exp()
        axes.plot(torch.linspace(0, 1, len(e)), (e - e.max()) / (e.max() - e.min()), label=name)
    axes.set(xlabel="share of bits flipped on the way from one memory to another", ylabel="energy, each by its depth")
    axes.legend(fontsize=8)


def main(folder: str | Path = "runs/energy_landscape") -> dict[float, Tensor]:
    """Draw both pictures into the folder; return of how many memories each resting place is a mean, by beta."""
    folder, console = Path(folder), Console()
    folder.mkdir(parents=True, exist_ok=True)
    figure, cells = plt.subplots(1, 3, figsize=(11, 4.4), layout="constrained", sharey=True)
    found = {beta: draw_plane(cell, beta) for beta, cell in zip(BETAS, cells, strict=True)}
    cells[0].set_ylabel("ξ₂")
    cells[0].legend(fontsize=8, loc="lower right")
    figure.suptitle("Energy of the plane, dark is low; each memory ends at a star")
    figure.savefig(folder / "plane.png", dpi=140)
    plt.close(figure)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    draw_wells(axes)
    figure.savefig(folder / "wells.png", dpi=130)
    plt.close(figure)
    for beta, number in found.items():
        console.print(f"beta {beta}: each comes to rest at a mean of {number.min():.2f} to {number.max():.2f} memories")
    console.print(f"Pictures are in {folder}.")
    return found


# %%
if __name__ == "__main__":
    main()
