"""How good draws are: effective sample sizes, R-hat, and moments."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from arviz_stats.base import array_stats

from benchmarks._mcmc.problem import Arrays


def score(draws: Arrays, divergences: int) -> dict[str, Any]:
    """Return the smallest bulk and tail ESS and the largest R-hat over all scalars, and their moments."""
    flat = [np.asarray(value, float).reshape(*np.shape(value)[:2], -1) for value in draws.values()]
    scalars = np.moveaxis(np.concatenate(flat, -1), -1, 0)  # (scalar, chain, draw)
    if not np.isfinite(scalars).all():
        raise ValueError("draws that are not finite")
    bulk = array_stats.ess(scalars, method="bulk")
    tail = array_stats.ess(scalars, method="tail", prob=(0.05, 0.95))
    return {
        "chains": scalars.shape[1],
        "draws": scalars.shape[2],
        "bulk": float(bulk.min()),
        "tail": float(tail.min()),
        "rhat": float(array_stats.rhat(scalars, method="rank").max()),
        "divergences": divergences,
        "mean": scalars.mean((1, 2)).tolist(),
        "sd": scalars.std((1, 2)).tolist(),
    }


def moments(reference: Mapping[str, Mapping[str, Any]], draws: Arrays) -> dict[str, list[float]]:
    """Return the reference's means and sds in the order of the scored scalars."""
    keys = {"mean": "mean", "sd": "sd"}
    return {key: np.concatenate([np.ravel(reference[site][key]) for site in draws]).tolist() for key in keys}


def errors(row: Mapping[str, Any], truth: Mapping[str, Any]) -> tuple[float, float]:
    """Return the worst distance of a mean, in the truth's sds, and the worst ratio of sds."""
    mean, sd = (np.asarray(truth[key]) for key in ("mean", "sd"))
    ratio = np.asarray(row["sd"]) / sd
    return float((np.abs(row["mean"] - mean) / sd).max()), float(ratio[np.abs(np.log(ratio)).argmax()])
