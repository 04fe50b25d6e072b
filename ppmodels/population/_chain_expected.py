"""What the M step of a hidden Markov chain needs of its states."""

from dataclasses import dataclass

from torch import Tensor

from ppmodels.base import Theta
from ppmodels.population.hidden_chain import posterior


@dataclass(frozen=True)
class Expected:
    """q of the states: p(z_t | y), (R, T, S), expected transitions (S, S), and the tables and theta they came from."""

    state: Tensor
    moves: Tensor
    log_likelihood: Tensor
    tables: tuple[Tensor, Tensor, Tensor]
    theta: Theta

    @classmethod
    def of(cls, tables: tuple[Tensor, Tensor, Tensor], theta: Theta) -> "Expected":
        """The E step at theta, whose tables of log probabilities these are."""
        return cls(*posterior(*tables), tables, theta)

    def bound(self, *tables: Tensor) -> Tensor:
        """Return E log p(z, y) at other tables, plus the entropy of q, ()."""
        return self._joint(*tables) - self._joint(*self.tables) + self.log_likelihood.sum()

    def _joint(self, log_initial: Tensor, log_transition: Tensor, log_observed: Tensor) -> Tensor:
        first = (self.state[:, 0].sum(0) * log_initial).sum()
        return first + (self.moves * log_transition).sum() + (self.state * log_observed).sum()
