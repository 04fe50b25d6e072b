"""EM by batches, for models whose M step reads sums over rows: of data that are there, and of data that stream by."""

from dataclasses import dataclass, field
from typing import Any, cast

import torch

from inference.base import Fit, Unsupported, fresh
from inference.em.problem import Problem
from inference.tracing.pieces import check_piece
from ppmodels.base import Data, HasStatistics, HasSums, Theta


def refuse_without_sums(model: Any) -> None:
    """Raise Unsupported when the model's M step needs the memberships of all rows at once."""
    if not isinstance(model, HasStatistics):
        name = getattr(model, "__name__", type(model).__name__)
        raise Unsupported(f"{name} has no statistics, maximise and expected_log_joint; em by batches needs them")


@dataclass
class Sums:
    """The sums of many batches, each to be replaced: a tree, so that the total is new after log B additions."""

    batches: int
    nodes: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = [None] * (2 * self.batches)

    def replace(self, batch: int, sums: Any) -> None:
        """Take these for the batch's sums."""
        place = batch + self.batches
        self.nodes[place] = sums
        while place > 1:
            place //= 2
            pair = [node for node in self.nodes[2 * place : 2 * place + 2] if node is not None]
            self.nodes[place] = pair[0] + pair[1] if len(pair) == 2 else pair[0]

    @property
    def total(self) -> Any:
        return self.nodes[1]


def climb_by_batches(
    problem: Problem, theta: Theta, batch_size: int, num_steps: int, tol: float
) -> tuple[Theta, list[float], bool]:
    """Return the top that incremental EM reaches, the bound after each pass over the batches, and whether it stood.

    One batch's sums are replaced, and then the M step is taken: the bound J(q, theta), which has the likelihood's
    tops, never falls, and a pass moves theta as many times as there are batches.
    Source: Neal and Hinton (1998), A view of the EM algorithm, section 4.
    """
    model, data = cast(HasStatistics, problem.model), problem.data
    parts = torch.arange(data.rows).split(batch_size)
    sums, rest = Sums(len(parts)), [0.0] * len(parts)  # rest: log p - E log p(x, z), of each batch when it was visited
    bounds: list[float] = []
    for step in range(num_steps):
        for i, rows in enumerate(parts):
            found, log_likelihood = model.statistics(theta, data.batch(rows))
            rest[i] = float(log_likelihood - model.expected_log_joint(found, theta))
            sums.replace(i, found)
            if step or i == len(parts) - 1:  # the first pass only fills: a few batches may not hold all components
                theta = model.maximise(sums.total, problem.prior)
        objective = sum(rest) + float(model.expected_log_joint(sums.total, theta))
        bounds.append(objective + (problem.log_prior(theta) if problem.prior else 0.0))
        if step and bounds[-1] - bounds[-2] <= tol * (1 + abs(bounds[-1])):
            return theta, bounds, True
    return theta, bounds, False


class Stream:
    r"""EM over batches that come once: each moves the running sums a little, and the parameters follow.

    .. math:: s \leftarrow (1 - \gamma_t) s + \gamma_t s_t, \quad \gamma_t = (t + 1)^{-\kappa}

    s_t: the sums that batch t gives a row, expected at the parameters so far. kappa, `decay`, in (1/2, 1]: 1 forgets
    nothing, and every row weighs the same, so that where nothing is latent pieces give what the whole gives.
    latent: False says that nothing is, as where all classes are known: rows are then counted, as if decay were 1, and
    parameters are found when somebody asks. Memory is that of one batch. `theta` holds the parameters by site.

    Raises: Unsupported when the model's M step does not read sums over rows.
    Source: Cappe and Moulines (2009), J. Royal Statistical Society B 71; Liang and Klein (2009).
    """

    def __init__(
        self, model: Any, *, decay: float = 0.7, prior: bool = False, latent: bool = True, seed: int = 0
    ) -> None:
        refuse_without_sums(model)
        if not latent and not isinstance(model, HasSums):
            raise Unsupported(f"{type(model).__name__} has no sums of rows of which all is known; take latent=True")
        if not 0.5 < decay <= 1:
            raise ValueError(f"decay must be above 0.5 and at most 1; it is {decay}")
        self.decay, self.prior, self.latent, self.seed = decay, prior, latent, seed
        self.model: Any = model
        self.batches, self.rows, self._sums, self._last, self._theta = 0, 0, None, None, None

    @property
    def theta(self) -> Theta | None:
        """The parameters so far, by site."""
        if self._theta is None and self._sums is not None:
            self._theta = self.model.maximise(self._sums, self.prior)
        return self._theta

    def learn(self, data: Data, theta: Theta | None = None) -> "Stream":
        """Learn from one more batch; the first one gives the start, unless `theta` does.

        Raises: ArithmeticError when a component has collapsed; the stream is then as it was before this batch.
        """
        if not self.latent:
            return self._count(data)
        check_piece(self.model, data, self._last)
        with fresh(self.model, (data,), seed=self.seed) as own:
            theta = theta or self.theta or own.start(data)
            found, _ = own.statistics(theta, data)
            here = len(next(iter(data.observed.values())))
            share = here / (self.rows + here) if self.decay == 1 else (self.batches + 1) ** -self.decay
            mean = found * (1 / here)
            sums = mean if self._sums is None else self._sums * (1 - share) + mean * share
            self._theta = own.maximise(sums * (self.rows + here), self.prior)
            self._sums, self.batches, self.rows, self._last = sums, self.batches + 1, self.rows + here, data
        return self

    def _count(self, data: Data) -> "Stream":
        """Add the sums of rows of which all is known; parameters can wait until somebody asks."""
        check_piece(self.model, data, self._last)
        sums = self.model.sums(data)
        self._sums, self._theta = sums if self._sums is None else self._sums + sums, None
        self.batches, self.rows = self.batches + 1, self.rows + len(next(iter(data.observed.values())))
        self._last = data
        return self

    def fit(self) -> Fit:
        """Return the parameters so far as a fit, whose data are the last batch."""
        if self.theta is None or self._last is None:
            raise ValueError("no rows have been learned yet")
        draws = {name: value[None, None] for name, value in self.theta.items()}
        info = {"seed": self.seed, "decay": self.decay, "message": f"{self.batches} batches of {self.rows} rows in all"}
        return Fit(self.model, (self._last,), {}, "em", draws, info=info)
