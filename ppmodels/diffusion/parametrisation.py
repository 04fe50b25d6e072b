r"""Four ways to say the same thing about a noisy x: its noise, its origin, a mixture of both, or a score.

.. math:: x = \alpha x_0 + \sigma\epsilon,\quad v = \alpha\epsilon - \sigma x_0,\quad
    \nabla_x \log p_t(x) = -\epsilon / \sigma
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ppmodels.diffusion.schedule import Level, Schedule

PREDICTIONS = ("epsilon", "x0", "v", "score")
Network = Callable[[Tensor, Tensor], Tensor]
Levels = tuple[Tensor, Tensor, Tensor]  # one a row: t (B,), alpha and sigma shaped to multiply x


def convert(value: Tensor, x: Tensor, alpha: float | Tensor, sigma: float | Tensor, source: str, target: str) -> Tensor:
    """Say in terms of `target` what `value` says in terms of `source`; all shaped like x.

    Raises: ValueError for a name that is not epsilon, x0, v or score.
    Source: Salimans and Ho (2022), arXiv:2202.00512, appendix D, for v.
    """
    for name in (source, target):
        if name not in PREDICTIONS:
            raise ValueError(f"no prediction_type {name!r}; there are: {', '.join(PREDICTIONS)}")
    if source == target:
        return value
    if target == "x0" and source == "v":
        return (alpha * x - sigma * value) / (alpha**2 + sigma**2)
    if source == "x0":
        epsilon = (x - alpha * value) / sigma
    elif source == "v":
        epsilon = (sigma * x + alpha * value) / (alpha**2 + sigma**2)
    else:
        epsilon = value if source == "epsilon" else -sigma * value
    if target == "epsilon":
        return epsilon
    if target == "score":
        return -epsilon / sigma
    x0 = value if source == "x0" else (x - sigma * epsilon) / alpha
    return x0 if target == "x0" else alpha * epsilon - sigma * x0


@dataclass(frozen=True)
class Denoiser:
    """A network, what it predicts, and the schedule it knows.

    network: (x (B, ...), t (B,)) -> (B, ...).
    prediction_type: epsilon, x0, v or score.
    clip: bound of |x0|, for data that keep it; it changes the law that is sampled. None leaves x0 alone.
    """

    network: Network
    schedule: Schedule
    prediction_type: str = "epsilon"
    clip: float | None = None

    def __post_init__(self):
        if self.prediction_type not in PREDICTIONS:
            names = ", ".join(PREDICTIONS)
            raise ValueError(f"no prediction_type {self.prediction_type!r}; there are: {names}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive; got {self.clip}")

    def epsilon(self, x: Tensor, level: Level | Levels) -> Tensor:
        """The noise in x, (B, ...)."""
        return self.predict(x, level, "epsilon")

    def x0(self, x: Tensor, level: Level | Levels) -> Tensor:
        """The mean of what x may have been without noise, (B, ...)."""
        return self.predict(x, level, "x0")

    def predict(self, x: Tensor, level: Level | Levels, target: str) -> Tensor:
        """What the network says about x, as `target`, (B, ...)."""
        t, alpha, sigma = level
        if not isinstance(t, Tensor):
            t = torch.full((len(x),), t, dtype=torch.long if isinstance(t, int) else x.dtype, device=x.device)
        value = self.network(x, t)
        if value.shape != x.shape:
            raise ValueError(f"the network maps {tuple(x.shape)} to {tuple(value.shape)}; these must agree")
        if self.clip is None:
            return convert(value, x, alpha, sigma, self.prediction_type, target)
        x0 = convert(value, x, alpha, sigma, self.prediction_type, "x0").clamp(-self.clip, self.clip)
        return convert(x0, x, alpha, sigma, "x0", target)


class Preconditioning(NamedTuple):
    """D(x) = skip x + out F(input x, noise), and the weight that makes every level's loss O(1)."""

    skip: Tensor
    out: Tensor
    input: Tensor
    noise: Tensor
    weight: Tensor


def edm_preconditioning(sigma: Tensor, sigma_data: float = 0.5) -> Preconditioning:
    """Scales that give a network unit inputs and targets. Source: Karras et al. (2022), table 1."""
    total = sigma**2 + sigma_data**2
    return Preconditioning(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data / total.sqrt(),
        input=1 / total.sqrt(),
        noise=sigma.log() / 4,
        weight=total / (sigma * sigma_data) ** 2,
    )
