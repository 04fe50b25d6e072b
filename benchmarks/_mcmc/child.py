"""`python -m benchmarks._mcmc.child SAMPLER PROBLEM ANSWER [agree]`: one sampler on one posterior.

It imports, then times the first fit (cold: with all that is traced, built and compiled) and the same fit
again (warm), scores the draws, and only then asks whether the peer's density is the same.
"""

import json
import logging
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    """Write one JSON object to the file ANSWER."""
    sampler, problem, answer, *flags = sys.argv[1:]
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    Path(answer).write_text(json.dumps(_agree(sampler, problem) if flags else _measure(sampler, problem)))


def _measure(sampler: str, name: str) -> dict[str, Any]:
    from benchmarks._mcmc import clock, scores
    from benchmarks._mcmc.problems import load
    from benchmarks._mcmc.samplers import MODULES, NOTHING_TO_COMPILE, SAMPLERS

    for module in MODULES[sampler]:
        try:
            __import__(module)
        except ImportError as error:
            return {"why_not": f"not installed: {error}"}
    problem = load(name)
    with clock.timed() as cold:
        draw = SAMPLERS[sampler](problem)
        draws, divergences = draw(1)
    warm = cold
    if sampler not in NOTHING_TO_COMPILE:
        with clock.timed() as warm:
            draws, divergences = draw(1)
    scored = problem.scored(draws)
    row = scores.score(scored, divergences) | {"cold": asdict(cold), "warm": asdict(warm)}
    if problem.reference is not None:
        row["truth"] = scores.moments(problem.reference, scored)
    return row | _agree(sampler, name)


def _agree(sampler: str, name: str) -> dict[str, Any]:
    from benchmarks._mcmc.agreement import PEERS, disagreement
    from benchmarks._mcmc.problems import load

    if not any(library.lower() in sampler.lower() for library in PEERS):
        return {"disagreement": 0.0}
    return {"disagreement": disagreement(load(name), sampler)}


if __name__ == "__main__":
    main()
