"""Is the answer to be trusted, what to do next if not, and how several answers compare."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import xarray as xr
from arviz_stats.summary import summary as arviz_summary
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from inference.base import Fit
from inference.calibration import Calibration, simulation_based_calibration
from inference.check import findings
from inference.check.finding import Finding
from inference.check.identification import identification
from inference.check.predictions import judged
from inference.datatree import to_datatree

__all__ = [
    "Calibration",
    "Diagnosis",
    "Finding",
    "cells",
    "diagnose",
    "named",
    "render",
    "simulation_based_calibration",
    "summary",
    "table",
]

COLORS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@dataclass(frozen=True)
class Diagnosis:
    """Whether a fit is to be trusted.

    ok: nothing is wrong or doubtful.
    findings: what is, the gravest first.
    """

    method: str
    ok: bool
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """One line a finding, below the verdict."""
        lines = [f"  {f.level}: {f.site + ': ' if f.site else ''}{f.sentence}" for f in self.findings]
        return "\n".join([f"{self.method}: {self._verdict()}", *lines])

    def __rich__(self) -> RenderableType:
        """Return the same with colours, in columns."""
        verdict = Text.assemble((self.method, "bold"), ": ", (self._verdict(), "green" if self.ok else "red"))
        grid = Table.grid(padding=(0, 1))
        for f in self.findings:
            grid.add_row("", Text(f.level, COLORS[f.level]), Text(f.site, "bold"), Text(f.sentence))
        return Group(verdict, grid) if self.findings else verdict

    def _verdict(self) -> str:
        return "nothing speaks against this answer" if self.ok else "do not trust this answer yet"


def diagnose(fit: Fit) -> Diagnosis:
    """Return what speaks against a fit: the run, the chains, the approximation, the model.

    Rank R-hat (nested for many chains) and bulk and tail ESS of each site element (of a network, of what it
    predicts in place of its weights), each chain's log density, divergences, BFMI, tree depth,
    Pareto k-hat, convergence of an optimiser, and posteriors wider than their priors.
    """
    posterior = judged(fit, _posterior(fit))
    found = [*findings.optimisation(fit), *findings.importance(fit), *findings.divergences(fit)]
    if all(bool(torch.isfinite(value).all()) for value in fit.draws.values()):
        if not _is_independent(fit):
            found += [*findings.mixing(posterior), *findings.heights(fit)]
            found += [*findings.energy(fit), *findings.tree_depth(fit)]
        found += identification(fit, posterior)
    order = {"error": 0, "warning": 1, "note": 2}
    found.sort(key=lambda f: order[f.level])
    return Diagnosis(fit.method, all(f.level == "note" for f in found), tuple(found))


def summary(
    fit: Fit,
    *,
    ci_prob: float = 0.89,
    ci_kind: str = "eti",
    var_names: str | Sequence[str] | None = None,
    round_to: int | None = None,
) -> pd.DataFrame:
    """Return ArviZ's table, a row an element: mean, sd, interval, ESS, R-hat and Monte Carlo errors.

    ci_prob, ci_kind: probability and kind (`eti`, `hdi`) of the interval.
    var_names: sites; by default all.
    round_to: digits; by default not rounded.
    """
    tree = xr.DataTree.from_dict({"posterior": _posterior(fit)})
    names = [var_names] if isinstance(var_names, str) else var_names
    options: dict[str, Any] = {"ci_prob": ci_prob, "ci_kind": ci_kind, "var_names": names}
    with np.errstate(invalid="ignore"):  # an element that never varies, as L[0, 0] of a Cholesky factor, has no R-hat
        found = arviz_summary(tree, round_to=cast(int, "none") if round_to is None else round_to, **options)
    return cast(pd.DataFrame, found)


def table(fits: Mapping[str, Fit] | Sequence[Fit], **options: Any) -> pd.DataFrame:
    """Return one table that sets several answers side by side: a row for each element and fit.

    fits: by name, or in order; then named by their methods.
    options: those of `summary`.

    Returns: index (quantity, method); columns mean, sd, both ends of the interval, ess_bulk, ess_tail,
        r_hat, seconds. What a method cannot have (the sd of a point, the R-hat of one chain) is missing;
        the second of two equal elements, as in a symmetric matrix, is left out.
    """
    tables = {}
    for name, fit in named(fits).items():
        one = summary(fit, **options).drop(columns=["mcse_mean", "mcse_sd"])
        if fit.draws and len(next(iter(fit.draws.values())).flatten(0, 1)) == 1:
            one.loc[:, [c for c in one.columns if c != "mean"]] = float("nan")
        elif _is_independent(fit):
            one["r_hat"] = float("nan")
        tables[name] = one.assign(seconds=float(fit.info.get("seconds", float("nan"))))
    order = list(dict.fromkeys(row for one in tables.values() for row in one.index))
    order = [row for i, row in enumerate(order) if not _repeats(row, order[:i], tables.values())]
    whole = pd.concat(tables, names=["method", "quantity"]).swaplevel()
    rows = [(row, name) for row in order for name in tables if row in tables[name].index]
    return whole.loc[rows]


def render(comparison: pd.DataFrame, title: str | None = None) -> Table:
    """Return the comparison for a terminal, a block for each quantity."""
    headings, rows = cells(comparison)
    shown = Table(title=title, box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if i < 2 else "right", no_wrap=i < 2)
    for i, (quantity, *rest) in enumerate(rows):
        if i and quantity:
            shown.add_section()
        shown.add_row(Text(quantity, "bold"), *rest)
    return shown


def cells(comparison: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return the comparison's headings and rows as words, a quantity named only in its first row."""
    rows, before = [], None
    for (quantity, method), row in zip(comparison.index.to_list(), comparison.to_dict("records"), strict=True):
        numbers = [_number(str(column), value) for column, value in row.items()]
        rows.append(["" if quantity == before else str(quantity), str(method), *numbers])
        before = quantity
    return ["", "method", *(_heading(str(column)) for column in comparison.columns)], rows


def named(fits: Mapping[str, Fit] | Sequence[Fit]) -> dict[str, Fit]:
    """Return the fits by name: by method, numbered where a method comes twice."""
    if isinstance(fits, Mapping):
        return dict(fits)
    found: dict[str, Fit] = {}
    for fit in fits:
        again = sum(name == fit.method or name.startswith(f"{fit.method} ") for name in found)
        found[f"{fit.method} {again + 1}" if again else fit.method] = fit
    return found


def _posterior(fit: Fit) -> xr.Dataset:
    tree = to_datatree(fit, log_likelihood=False, prior=0, posterior_predictive=False)
    return tree["posterior"].to_dataset() if "posterior" in tree.children else xr.Dataset()


def _is_independent(fit: Fit) -> bool:
    """Are the draws one chain of independent ones, as of an approximation?"""
    chains = next(iter(fit.draws.values())).shape[0] if fit.draws else 1
    moves = {"acceptance_rate", "diverging", "energy"} & set(fit.stats)
    return chains == 1 and not moves and "num_warmup" not in fit.info


def _repeats(row: str, before: Sequence[str], tables: Iterable[pd.DataFrame]) -> bool:
    """Is this element the same as an earlier one of its site in every fit, as in a symmetric matrix?"""
    site = row.partition("[")[0] + "["
    found = [one for one in tables if row in one.index]
    for other in (name for name in before if name.startswith(site)):
        if all(other in one.index and one.loc[other].equals(one.loc[row]) for one in found):
            return True
    return False


def _heading(column: str) -> str:
    return {"ess_bulk": "ESS bulk", "ess_tail": "ESS tail", "r_hat": "R-hat"}.get(column, column.replace("_", " "))


def _number(column: str, value: Any) -> str:
    if pd.isna(value):
        return "-"
    if column.startswith("ess"):
        return f"{value:.0f}"
    digits = {"r_hat": ".3f", "seconds": ".1f"}.get(column, ".4g")
    return format(value, digits)
