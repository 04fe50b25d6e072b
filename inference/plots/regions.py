"""Where in a plane which class, or which component, is believed; and how firmly."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.colors
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from inference.plots.panels import page

STEPS = 160  # of the grid, in each direction
WIDEST = 3  # panels beside one another


def regions(
    predictors: Mapping[str, Callable[[Tensor], Tensor]],
    x: Tensor,
    label: Tensor,
    *,
    names: Sequence[str] = ("x[0]", "x[1]"),
    classes: Sequence[str] | None = None,
) -> Figure:
    """Return a panel for each predictor of a row's class probabilities, (N, C), from its two columns.

    Colours are mixed in proportion to the probabilities, and lines are drawn where two classes are equally likely.
    x (N, 2), label (N,): rows, drawn in the colour of what they are. names: of the columns, with units.
    """
    low, high = x.amin(0), x.amax(0)
    margin = 0.06 * (high - low)
    sides = [torch.linspace(float(a), float(b), STEPS).to(x) for a, b in zip(low - margin, high + margin, strict=True)]
    grid = torch.cartesian_prod(*sides)  # (STEPS^2, 2)
    kinds = label.unique().tolist()
    colors = np.array([matplotlib.colors.to_rgb(f"C{k}") for k in range(max(10, len(kinds)))])
    columns = min(WIDEST, len(predictors))
    with page(-(-len(predictors) // columns), columns, width=3.6 * columns, height=3.4) as (figure, axes):
        for axis, (name, predict) in zip(axes.flat, predictors.items(), strict=False):
            share = predict(grid).double().numpy()  # (STEPS^2, C)
            mixed = (share @ colors[: share.shape[1]]).reshape(STEPS, STEPS, 3).transpose(1, 0, 2)
            extent = (*(float(v) for v in sides[0][[0, -1]]), *(float(v) for v in sides[1][[0, -1]]))
            axis.imshow(0.4 * mixed + 0.6, origin="lower", extent=extent, aspect="auto", interpolation="bilinear")
            for k in range(share.shape[1]):
                lead = share[:, k] - np.delete(share, k, 1).max(1)
                axis.contour(
                    *(s.numpy() for s in sides), lead.reshape(STEPS, STEPS).T, levels=[0], colors="0.25", linewidths=0.8
                )
            for k in kinds:
                said = classes[int(k)] if classes else f"class {int(k)}"
                axis.scatter(*x[label == k].T.numpy(), s=11, color=f"C{int(k)}", ec="white", lw=0.3, label=said)
            axis.set(xlabel=names[0], ylabel=names[1], title=name)
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds))
    return figure
