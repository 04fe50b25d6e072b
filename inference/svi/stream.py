"""Variational inference for rows that come in pieces: the next steps of one optimiser on each."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
from torch import Tensor

from inference.base import Fit, Unsupported, fresh, joint
from inference.svi.objective import Objective, Survey
from inference.svi.options import Options
from inference.tracing.learned import in_store
from inference.training.pieces import Pieces
from ppmodels.base import Data, Model


class Stream:
    """A guide, and what the model learns, moved a few steps by each piece of the rows, which is then forgotten.

    The answer is the average of where the pieces led.

    guide: "hand", "mean-field", "full-rank", "low-rank", "flow", or any of Pyro's; as for `fit`. rows: how many there
    are in all, if known; else as many as have come, so the same rows twice count twice.
    batch_steps, lr: see `inference.training.pieces.Pieces`. num_particles: draws a step.

    Raises: Unsupported for a plain program, and, at the first piece, where a row has latents and no guide by hand.
    """

    def __init__(
        self, model: Any, *, guide: Any = None, batch_steps: int = 10, lr: float = 0.05, num_particles: int = 1,
        num_samples: int = 1000, rows: int | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        if not isinstance(model, Model):
            raise Unsupported("rows in pieces are those of a `Data`; a plain program has none")
        self.model, self.seed, self._last = model, seed, Data(0)
        self.options = Options(guide, 1, lr, 1, num_particles, None, num_samples, 1.0, 1)
        self.pieces = Pieces(batch_steps, lr, rows, seed)

    def learn(self, data: Data) -> "Stream":
        """Take the next steps on these rows."""
        with self._objective(data) as (_, objective):
            piece = objective.args[0]
            self.pieces.descend(piece, lambda _: objective.loss(None), _parameters, objective.buffers)
        self._last = data
        return self

    def fit(self) -> Fit:
        """Return draws of the guide as it is now; the fit's data are the last piece."""
        if self.pieces.state is None:
            raise ValueError("no rows have been learned yet")
        with self._objective(self._last, new=False) as (own, objective):
            self.pieces.recall(objective.loss, _parameters)
            parameters = in_store()
            if objective.latent:
                draws = {n: v[None] for n, v in objective.draw(self.options.num_samples, objective.latent)[0].items()}
            else:
                draws = {n: v[None, None] for n, v in parameters.items() if "$$$" not in n}
        elbo = self.pieces.state[0]["objective"]
        info = {"seed": self.seed, "message": f"{len(elbo)} steps on {self.pieces.seen} rows in pieces"}
        return Fit(own, (self._last,), {}, "svi", draws, {"elbo": elbo}, info=info, state={"parameters": parameters})

    @contextmanager
    def _objective(self, data: Data, new: bool = True) -> Iterator[tuple[Any, Objective]]:
        """The bound of these rows, scaled up to all, on a clean slate."""
        piece = self.pieces.take(data) if new else data
        with fresh((self.model, self.options.guide), (piece,), seed=self.seed) as (own, guide):
            self.options.refuse(own, (piece,))
            survey = Survey.of(joint(own, (piece,), {}), (piece,), {})
            name = self.options.name(own, survey)
            q = guide if callable(guide) else name
            yield own, Objective.of(own, (piece,), {}, q, survey, self.options.num_particles or 1)


def _parameters() -> dict[str, Tensor]:
    return dict(pyro.get_param_store().named_parameters())
