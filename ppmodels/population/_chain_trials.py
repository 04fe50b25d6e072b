"""Trials of a hidden Markov chain, its states summed out."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import Distribution
from torch import Tensor

from ppmodels.base import Theta
from ppmodels.population._gapped import TrialDistribution
from ppmodels.population.hidden_chain import log_likelihood, logarithms, sample


class ChainTrials(TrialDistribution):
    """p(y) of trials (T, N) given the chain, initial and transition of theta, and what each state emits.

    emissions: its score(y) of y (R, T, N) is log p(y_t | z_t), (R, T, S); its law(states) of states (R, T) is the
    law of y.
    """

    def __init__(self, theta: Theta, emissions: Any, size: tuple[int, int], gaps: bool = False) -> None:
        super().__init__(size[0], size[1], gaps)
        self.initial, self.transition, self.emissions = theta["initial"], theta["transition"], emissions

    def log_prob(self, value: Tensor) -> Tensor:
        observed = self.emissions.score(value.reshape(-1, *self.event_shape))
        initial, transition = logarithms(self.initial, self.transition)
        return log_likelihood(initial, transition, observed).reshape(value.shape[:-2])

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size((*sample_shape, *self.batch_shape))
        with torch.no_grad():
            states = sample(self.initial, self.transition, self.event_shape[0], shape)
            return self.emissions.law(states).sample()


def chain_priors(states: int, stay: float, concentration: float) -> dict[str, Distribution]:
    """Return the priors of initial and transition: a state is kept `stay` pseudo-times more than it is left."""
    moves = torch.full((states, states), concentration) + stay * torch.eye(states)
    return {
        "initial": dist.Dirichlet(torch.full((states,), concentration)),
        "transition": dist.Dirichlet(moves).to_event(1),
    }


def maximise_chain(state: Tensor, moves: Tensor, prior: dict[str, Any] | None) -> dict[str, Tensor]:
    """Return initial (S,) and transition (S, S) from p(z_t | y), (R, T, S), and expected transitions, (S, S)."""
    first = state[:, 0].sum(0)
    if prior is not None:
        first = first + prior["initial"].concentration - 1
        moves = moves + prior["transition"].base_dist.concentration - 1
    first, moves = first.clamp_min(0), moves.clamp_min(0)
    rows = moves.sum(-1, keepdim=True)
    moves = torch.where(rows > 0, moves / rows.clamp_min(1e-300), torch.full_like(moves, 1 / len(moves)))
    return {"initial": first / first.sum(), "transition": moves}


def start_chain(states: int) -> Theta:
    """Return a chain to start from, which stays where it is four times out of five."""
    stay = 0.2 / states + 0.8 * torch.eye(states)
    return {"initial": torch.full((states,), 1 / states), "transition": stay / stay.sum(-1, keepdim=True)}


def reordered(draws: Theta, order: Tensor) -> Theta:
    """Return the draws with states, the first axis of every site, in this order, (..., S)."""
    found, batch = {}, order.ndim - 1
    for name, value in draws.items():
        index = order.reshape(*order.shape, *[1] * (value.ndim - order.ndim))
        value = value.take_along_dim(index, batch)
        found[name] = value.take_along_dim(order[..., None, :], -1) if name == "transition" else value
    return found
