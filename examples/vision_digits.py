# %% [markdown]
# # Digits in patches: fill in what is hidden first, then name what is seen
#
# 1797 real digits of 8 by 8 pixels, cut into sixteen patches of 2 by 2, which a vision transformer reads as a
# sentence. First it learns, without any label, to fill in patches when three in four are hidden; then to name the
# digit from a hundred labels. Does the first help the second? And where does it look?

# %%
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from rich.console import Console
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy

from inference.training import Training, warmup_cosine
from ppmodels.nn.parameter_groups import parameter_groups
from ppmodels.nn.vision import MaskedAutoencoder, VisionTransformer, unpatchify

SHAPE, PATCH, LABELS, TRAINED = (1, 8, 8), 2, 100, 1437


def main(folder: str | Path = "runs/vision_digits", num_steps: int = 1200) -> dict[str, float]:
    """Fill in, then name, from scratch and after filling in; print and draw; return the held-out accuracies."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)[order]
    y = torch.tensor(digits.target)[order]
    fresh = VisionTransformer(SHAPE, PATCH, 10, width=48, layers=3, heads=4)
    generator = torch.Generator().manual_seed(0)
    filler = MaskedAutoencoder(deepcopy(fresh), hidden=0.75)
    filling = train(filler, lambda rows: filler.loss(x[rows], generator), num_steps, TRAINED)
    curves, accuracy, console = {}, {}, Console(width=110)
    told = {"from scratch": fresh, "after filling in": filler.encoder}
    both = {f"{LABELS} labels, {name}": (deepcopy(network), LABELS) for name, network in told.items()}
    both[f"{TRAINED} labels, after filling in"] = deepcopy(filler.encoder), TRAINED
    for name, (network, labels) in both.items():

        def loss(rows: Tensor, network: VisionTransformer = network) -> Tensor:
            return cross_entropy(network(x[rows]), y[rows])

        curves[name] = train(network, loss, num_steps // 3 if labels == LABELS else num_steps, labels)
        network.eval()
        with torch.no_grad():
            accuracy[name] = float((network(x[TRAINED:]).argmax(-1) == y[TRAINED:]).double().mean())
        console.print(f"{name}: {accuracy[name]:.3f} of {len(x) - TRAINED} held-out digits are right")
    last = list(both.values())[-1][0]
    draw(filler.eval(), last, x[TRAINED:], filling, curves).savefig(Path(folder) / "vision_digits.png", dpi=150)
    return accuracy


def train(network: torch.nn.Module, loss: Callable[[Tensor], Tensor], num_steps: int, rows: int) -> Tensor:
    """Learn from the first rows; the loss at every step."""
    run = Training(
        num_steps, 2e-3, rows=rows, batch_size=min(rows, 64), optimiser=torch.optim.AdamW, clip=1.0,
        groups=parameter_groups(network, 2e-3, 0.05), schedule=warmup_cosine(num_steps // 10, num_steps),
    )  # fmt: skip
    return -run.run(loss, network).curves()["objective"]


@torch.no_grad()
def draw(
    filler: MaskedAutoencoder, network: VisionTransformer, x: Tensor, filling: Tensor, curves: dict[str, Tensor]
) -> Figure:
    """Learning; digits, what was left of them and what was filled in; and where the summary looks."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), width_ratios=[1, 1.3, 1.3], layout="constrained")
    for name, curve in {"filling in (squared error)": filling, **curves}.items():
        axes[0].semilogy(curve.unfold(0, 20, 1).mean(-1), label=name, lw=1)
    axes[0].set(xlabel="step", ylabel="loss", title="Learning", ylim=(1e-3, 4))
    axes[0].legend(fontsize=7)
    some = x[:8]
    patches, hidden = filler(some, torch.Generator().manual_seed(3))
    filled = unpatchify(patches, PATCH, SHAPE)
    mask = unpatchify(hidden[..., None].expand(-1, -1, PATCH**2).float(), PATCH, SHAPE)
    rows = [some, torch.where(mask > 0, 0.5, some), torch.where(mask > 0, filled.clamp(0, 1), some)]
    show(axes[1], torch.stack(rows), ["digit", "shown", "filled in"], "gray_r")
    axes[1].set_title("Three patches in four are hidden (grey)")
    tokens = network.embedding(torch.nn.functional.unfold(some, PATCH, stride=PATCH).mT) + network.position
    h = torch.cat([network.summary.expand(8, 1, -1), tokens], 1)
    looks = []
    for block in network.encoder.stack:
        looks.append(block.attention.weights(block.norm(h))[:, :, 0, 1:].mean(1).reshape(-1, 1, 4, 4))
        h = block(h)
    maps = [torch.nn.functional.interpolate(look / look.amax((2, 3), keepdim=True), scale_factor=2) for look in looks]
    show(axes[2], torch.stack([some, *maps]), ["digit", *(f"layer {i + 1}" for i in range(len(maps)))], "viridis")
    axes[2].set_title("Where the summary looks, each over its peak")
    return figure


def show(axis: plt.Axes, rows: Tensor, names: list[str], colours: str) -> None:
    """Rows of images, (R, N, 1, 8, 8), named at the side."""
    cells = torch.nn.functional.pad(rows[:, :, 0], (1, 1, 1, 1), value=float("nan"))  # (R, N, 10, 10)
    axis.imshow(cells.permute(0, 2, 1, 3).flatten(2).flatten(0, 1), cmap=colours, vmin=0, vmax=1)
    axis.set_yticks([10 * i + 4.5 for i in range(len(names))], names)
    axis.set_xticks([])


# %%
if __name__ == "__main__":
    main()
