"""Cross-validation over blocks: held out are runs of rows, for bins beside one another are not independent."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data, Theta
from ppmodels.population.scores import Score, score


def folds(rows: int, number: int = 5) -> list[Tensor]:
    """Return the rows held out in each fold: runs of neighbours, as long as one another up to one.

    Raises: ValueError where there are more folds than rows, or fewer than two.
    """
    if not 2 <= number <= rows:
        raise ValueError(f"there must be between two and {rows} folds, one a row at most; got {number}")
    return list(torch.arange(rows).tensor_split(number))


def rows_of(data: Data, rows: Tensor) -> Data:
    """Return these rows as a data set of its own, not as a minibatch of the whole."""
    return replace(data.batch(rows), rows=len(rows), index=None)


def cross_validate(
    fit: Callable[[Any, Data], Any], model: Any, data: Data, number: int = 5, draws: int = 100
) -> tuple[Score, list[Tensor]]:
    """Return held-out scores, and each fold's bits a spike, (N,); the null is the training data's mean rate.

    fit: a back end, `lambda model, data: laplace.fit(model, data)`; what it returns has `draws` by site.
    draws: of each fit at most, evenly spaced; the predictive mean is averaged over them.
    """
    parts, bits = [], []
    for held in folds(data.rows, number):
        rest = torch.ones(data.rows, dtype=torch.bool)
        rest[held] = False
        train, test = rows_of(data, rest.nonzero()[:, 0]), rows_of(data, held)
        mean = expected(model, fit(model, train).draws, test, draws)
        seen = (train.given["seen"] > 0).double()
        null = (train.observed["counts"] * seen).double().flatten(0, 1).sum(0) / seen.flatten(0, 1).sum(0)
        bernoulli = model.observation == "bernoulli"
        parts.append(score(test.observed["counts"], mean, null.clamp(min=1e-9), test.given["seen"], bernoulli))
        bits.append(parts[-1].bits_per_spike)
    names = ("log_likelihood", "null_log_likelihood", "spikes", "deviance", "null_deviance")
    sums = [torch.stack([getattr(part, name) for part in parts]).sum(0) for name in names]
    return Score(*sums, null=parts[0].null), bits


def expected(model: Any, draws: Theta, data: Data, number: int = 100) -> Tensor:
    """Return the posterior mean of each bin's mean count given the spikes before it, (R, T, N).

    draws: by site, (chain, draw, *site); at most `number` of them are used, evenly spaced.
    """
    flat = {name: value.flatten(0, 1) for name, value in draws.items()}
    total = len(next(iter(flat.values())))
    pick = torch.linspace(0, total - 1, min(number, total)).round().long()
    mean = 0.0
    for s in pick.tolist():
        law = model.population({name: value[s] for name, value in flat.items()}, data)
        mean = mean + model.law.mean(law.total_drive(data.observed["counts"]))
    return mean / len(pick)  # type: ignore[return-value]
