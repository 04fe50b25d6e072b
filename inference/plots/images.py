"""Pictures of networks that make pictures: grids of images, maps of codes, how often a code is used."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from inference.plots.panels import page


def images(rows: Sequence[Tensor], shape: tuple[int, int], names: Sequence[str] = (), title: str = "") -> Figure:
    """Return a grid of images: each of `rows` is (columns, height * width), and has a name on its left.

    Reconstructions below the originals; samples; traversals, a row a latent: what stands in one row belongs together.
    All are drawn on one grey scale, from the least to the greatest value.

    Raises: ValueError when a row does not hold images of this shape.
    """
    for k, row in enumerate(rows):
        if row.ndim != 2 or row.shape[1] != shape[0] * shape[1]:
            raise ValueError(f"row {k} must be (images, {shape[0] * shape[1]}); it is {tuple(row.shape)}")
    columns = max(len(row) for row in rows)
    low, high = min(float(row.min()) for row in rows), max(float(row.max()) for row in rows)
    left = 0.09 * max([0, *(len(name) for name in names)])
    width, height = 0.55 * columns + left + 0.2, 0.55 * len(rows) + (0.45 if title else 0.15)
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        len(rows), columns, left=(left + 0.1) / width, right=1 - 0.1 / width, bottom=0.08 / height,
        top=1 - (0.4 if title else 0.07) / height, wspace=0.06, hspace=0.06,
    )  # fmt: skip
    for k, row in enumerate(rows):
        for column, image in enumerate(row):
            axis = figure.add_subplot(grid[k, column])
            axis.imshow(image.detach().double().reshape(shape).numpy(), cmap="gray", vmin=low, vmax=high)
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0 and k < len(names):
                axis.set_ylabel(names[k], rotation=0, ha="right", va="center", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11, y=1 - 0.08 / height)
    return figure


def latent_map(z: Tensor, labels: Tensor | None = None, title: str = "") -> Figure:
    """Return rows' codes by their first two coordinates, (N, 2 or more), coloured by whole-number labels, (N,).

    Raises: ValueError for fewer than two coordinates.
    """
    if z.ndim != 2 or z.shape[1] < 2:
        raise ValueError(f"a map needs codes of at least two coordinates; got {tuple(z.shape)}")
    with page(1, 1, width=5.2, height=4.4) as (figure, axes):
        axis = axes[0][0]
        found = [None] if labels is None else sorted(set(labels.tolist()))
        colours = [f"C{k}" for k in range(10)] if len(found) <= 10 else [f"C{k % 10}" for k in range(len(found))]
        for k, label in enumerate(found):
            here = z if labels is None else z[labels == label]
            axis.scatter(*here[:, :2].detach().numpy().T, s=7, alpha=0.6, color=colours[k], label=label, lw=0)
        axis.set(xlabel="latent 0 (prior sds)", ylabel="latent 1 (prior sds)", title=title, aspect="equal")
        if labels is not None:
            axis.legend(title="label", markerscale=2.2, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def code_use(codes: Tensor, number: int) -> Figure:
    """Return how often each of `number` codes is chosen, the most used first, beside even use."""
    share = torch.bincount(codes.flatten(), minlength=number).double() / codes.numel()
    ordered = share.sort(descending=True)[0].numpy()
    used, perplexity = int((share > 0).sum()), float(torch.special.entr(share).sum().exp())
    with page(1, 1, width=5, height=3) as (figure, axes):
        axis = axes[0][0]
        axis.bar(np.arange(number), 100 * ordered, width=0.9, color="C0")
        axis.axhline(100 / number, color="0.3", ls="--", lw=1, label="even use")
        axis.set(xlabel="code, most used first", ylabel="share (%)")
        axis.set_title(f"{used} of {number} codes in use, perplexity {perplexity:.1f}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(frameon=False)
    return figure
