"""Draws from the exact posterior, for models that know it by conjugacy: of rows that are there, and that stream by."""

import time
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from inference.base import Fit, Unsupported, check_data, fresh
from inference.tracing.pieces import check_piece
from ppmodels.base import Data, HasEvidence, HasPosterior, HasSums

__all__ = ["Stream", "fit"]


def fit(model: Any, *args: Any, seed: int = 0, num_samples: int = 1000, **kwargs: Any) -> Fit:
    """Draw independently from the model's own posterior; the draws are chain 1.

    Returns: a Fit; its `info` has `log_evidence`, log p(observed | given), when the model knows it.
    Raises: Unsupported when the model has no exact posterior.
    """
    began = time.perf_counter()
    if not isinstance(model, HasPosterior):
        name = getattr(model, "__name__", type(model).__name__)
        raise Unsupported(f"{name} has no posterior in closed form; exact needs one")
    _check(num_samples)
    with fresh(model, args, kwargs, seed=seed) as own:
        check_data(own, tuple(each.plain(own) if isinstance(each, Data) else each for each in args), kwargs)
        draws = _draw(own.posterior(args[0]), num_samples)
        info: dict[str, Any] = {"seed": seed, "converged": True, "message": "exact"}
        if isinstance(own, HasEvidence):
            info["log_evidence"] = float(own.log_evidence(args[0]))
        info["seconds"] = time.perf_counter() - began
        return Fit(own, args, kwargs, "exact", draws, info=info)


class Stream:
    """The exact posterior of rows that come in pieces and are forgotten: what one fit to all of them gives.

    rows: how many there have been. Memory is that of one piece and of the sums over all.

    Raises: Unsupported when the model's posterior does not read sums over rows.
    """

    def __init__(self, model: Any, *, num_samples: int = 1000, seed: int = 0) -> None:
        if not isinstance(model, HasSums):
            name = getattr(model, "__name__", type(model).__name__)
            raise Unsupported(f"{name} has no posterior by sums over rows; exact in pieces needs sums and given")
        _check(num_samples)
        self.model, self.num_samples, self.seed = model, num_samples, seed
        self.rows, self.sums, self._last = 0, None, None

    def learn(self, data: Data) -> "Stream":
        """Add the sums of some more rows; where they cannot be, none of them is learned."""
        check_piece(self.model, data, self._last)
        sums = self.model.sums(data)
        self.sums = sums if self.sums is None else self.sums + sums
        self.rows, self._last = self.rows + len(next(iter(data.observed.values()))), data
        return self

    def fit(self) -> Fit:
        """Return draws from the posterior of all rows so far; the fit's data are the last piece."""
        if self._last is None:
            raise ValueError("no rows have been learned yet")
        with fresh(self.model, (self._last,), seed=self.seed) as own:
            draws = _draw(own.given(self.sums), self.num_samples)
        info = {"seed": self.seed, "converged": True, "message": f"exact, of {self.rows} rows in pieces"}
        return Fit(own, (self._last,), {}, "exact", draws, info=info)


def _draw(posterior: Any, num_samples: int) -> dict[str, Tensor]:
    """Independent draws by site, (1, num_samples, *site)."""
    draws: dict[str, Tensor] = {}
    for name, site in posterior.items():  # a law, or a function of the sites before it
        law = isinstance(site, Distribution)
        draws[name] = site.sample((1, num_samples)) if law else site(draws).sample()
    return draws


def _check(num_samples: int) -> None:
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1; it is {num_samples}")
