"""Reliability diagram: how often what was called so likely did happen, and how often such things were said."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from inference.plots.panels import page
from inference.scoring import Reliability

WIDEST = 3  # panels beside one another


def reliability(found: Reliability | Mapping[str, Reliability]) -> Figure:
    """Return a panel for each classifier: frequency over confidence, with how many rows were so confident below.

    The bars of each point are two standard errors of a frequency that is as the confidence says: what lies
    further from the diagonal than they reach is not chance.
    """
    panels = found if isinstance(found, Mapping) else {"": found}
    columns = min(WIDEST, len(panels))
    with page(-(-len(panels) // columns), columns, width=3.4 * columns + 0.4, height=4.0) as (figure, axes):
        for axis, (name, one) in zip(axes.flat, panels.items(), strict=False):
            share = (one.count / one.count.sum()).numpy()
            left, width = one.edges[:-1].numpy(), one.edges.diff().numpy()
            axis.bar(left, share, width, align="edge", color="0.85", lw=0, label="share of rows")
            axis.plot([0, 1], [0, 1], color="0.5", lw=0.8, ls="--")
            seen = one.count > 0
            x, y, reach = (v[seen].numpy() for v in (one.confidence, one.frequency, 2 * one.standard_error))
            axis.errorbar(x, y, reach, fmt="o", ms=4, lw=1, label="frequency")
            axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="frequency", aspect="equal")
            axis.set_title(f"{name}\nECE {one.ece:.3f}, MCE {one.mce:.3f}".strip(), loc="left")
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
