r"""How much signal and noise every step holds: :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon`.

One convention for the whole family. t counts the steps taken: 0 is the data, T the noisiest level. In a
variance preserving schedule :math:`\bar\alpha_t = \alpha_t^2 = \prod_{s \le t} (1 - \beta_s)` is the
*cumulative* product and :math:`\sigma_t^2 = 1 - \bar\alpha_t`; texts that print the product without its bar
mean the same number. Where other libraries count 0..T-1, their timestep is our t - 1.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ppmodels.diffusion._timesteps import timesteps


class Level(NamedTuple):
    """One noise level: its time, and the size of signal and noise there."""

    t: float
    alpha: float
    sigma: float


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) = N(of_x x_t + of_x0 x_0, variance I); `forward` is the variance of q(x_t | x_s)."""

    of_x: float
    of_x0: float
    variance: float
    forward: float


@dataclass(frozen=True)
class Schedule:
    """Signal and noise at t = 0..T, each (T + 1,); t = 0 is the data: alpha 1, sigma 0.

    Raises: ValueError unless the noise, relative to the signal, grows at every step.
    """

    alpha: Tensor
    sigma: Tensor

    def __post_init__(self):
        if self.alpha.ndim != 1 or self.alpha.shape != self.sigma.shape or len(self.alpha) < 2:
            shapes = tuple(self.alpha.shape), tuple(self.sigma.shape)
            raise ValueError(f"alpha and sigma need one shape (T + 1,), T >= 1; got {shapes[0]} and {shapes[1]}")
        if float(self.alpha[0]) != 1 or float(self.sigma[0]) != 0:
            raise ValueError(f"step 0 is the data, alpha 1 and sigma 0; got {self.alpha[0]} and {self.sigma[0]}")
        if not bool((self.alpha > 0).all()) or not bool(self.sigma.isfinite().all()):
            raise ValueError("every alpha must be positive and every sigma finite")
        falls = (self.sigma / self.alpha).diff() <= 0
        if bool(falls.any()):
            step = int(falls.nonzero()[0]) + 1
            raise ValueError(f"the noise must grow at every step; sigma / alpha does not at step {step}")

    @property
    def steps(self) -> int:
        return len(self.alpha) - 1

    @property
    def alpha_bar(self) -> Tensor:
        """Share of the signal in the variance of unit data, (T + 1,)."""
        return self.alpha**2 / (self.alpha**2 + self.sigma**2)

    @property
    def beta(self) -> Tensor:
        """Noise added by step t, (T + 1,); beta_0 = 0. For variance preserving schedules."""
        return torch.cat([self.alpha.new_zeros(1), 1 - (self.alpha[1:] / self.alpha[:-1]) ** 2])

    @property
    def log_snr(self) -> Tensor:
        """Half the log signal-to-noise ratio, log(alpha / sigma), (T + 1,); infinite at t = 0."""
        return self.alpha.log() - self.sigma.log()

    def level(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at t (B,), shaped to multiply x (B, ...). A fractional t >= 1 is interpolated.

        Raises: ValueError when a t lies outside 0..T, or strictly between 0 and 1.
        """
        self._check(t)
        alpha, sigma = (table.to(t.device) for table in (self.alpha, self.sigma))
        low = t.floor().long() if t.is_floating_point() else t.long()
        alpha_t, sigma_t = alpha[low], sigma[low]
        if t.is_floating_point():
            part, high = t.double() - low, (low + 1).clamp(max=self.steps)
            log_snr, radius = (alpha / sigma).log(), (alpha**2 + sigma**2).sqrt()
            between = torch.lerp(log_snr[low], log_snr[high], part)
            size = torch.lerp(radius[low], radius[high], part)
            alpha_t = torch.where(part == 0, alpha_t, size * (2 * between).sigmoid().sqrt())
            sigma_t = torch.where(part == 0, sigma_t, size * (-2 * between).sigmoid().sqrt())
        shape = (-1,) + (1,) * (x.ndim - 1)
        return alpha_t.to(x.dtype).reshape(shape), sigma_t.to(x.dtype).reshape(shape)

    def at(self, t: float) -> Level:
        """The level of one time, in double precision."""
        alpha, sigma = self.level(torch.as_tensor([t]), self.alpha[:1].double())
        return Level(t, float(alpha), float(sigma))

    def grid(self, num_inference_steps: int, spacing: str = "linspace", start: float | None = None) -> list[Level]:
        """Levels that a sampler visits, noisiest first and the data last: num_inference_steps + 1 of them.

        spacing: `linspace`, `leading`, `trailing` (whole steps); `log_snr`, `karras` (rho 7), `angle`
        (atan(sigma / alpha)), `balanced` between log_snr and the angle (fractional ones).
        start: the time to begin from; T when None.
        Raises: ValueError for an unknown spacing, or more steps than there are.
        """
        times = timesteps(self.log_snr.double(), num_inference_steps, spacing, start)
        self._check(times)
        x = self.alpha.new_ones(1, dtype=torch.float64)
        alpha, sigma = self.level(times, x)
        return [Level(*row) for row in zip(times.tolist(), alpha.tolist(), sigma.tolist(), strict=True)]

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """A draw of q(x_t | x_0) from its noise, (B, ...), at t (B,)."""
        if noise.shape != x0.shape or t.shape != x0.shape[:1]:
            shapes = f"{tuple(x0.shape)}, {tuple(noise.shape)} and {tuple(t.shape)}"
            raise ValueError(f"data and noise need one shape (B, ...) and times (B,); got {shapes}")
        alpha, sigma = self.level(t, x0)
        return alpha * x0 + sigma * noise

    def _check(self, t: Tensor) -> None:
        wrong = (t < 0) | (t > self.steps) | ((t > 0) & (t < 1)) | t.isnan()
        if bool(wrong.any()):
            worst = t[wrong].flatten()[0].item()
            raise ValueError(f"a timestep is 0 (data) or between 1 and {self.steps}; got {worst}")


def from_betas(beta: Tensor) -> Schedule:
    """Variance preserving schedule whose step t adds noise of variance beta_t, (T,).

    Raises: ValueError unless every beta lies strictly between 0 and 1.
    """
    beta = torch.as_tensor(beta, dtype=torch.float64)
    if beta.ndim != 1 or not len(beta) or not bool(((beta > 0) & (beta < 1)).all()):
        raise ValueError("betas must be a vector (T,) of numbers strictly between 0 and 1")
    log_alpha_bar = torch.cat([beta.new_zeros(1), torch.log1p(-beta).cumsum(0)])  # (T + 1,)
    return Schedule((log_alpha_bar / 2).exp(), torch.expm1(log_alpha_bar).abs().sqrt())


def linear(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Variances that rise linearly. Source: Ho, Jain and Abbeel (2020), arXiv:2006.11239, section 4."""
    return from_betas(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64))


def cosine(steps: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> Schedule:
    """Alpha-bar a squared cosine. Source: Nichol and Dhariwal (2021), arXiv:2102.09672, equation 17."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((t + offset) / (1 + offset) * torch.pi / 2) ** 2  # (T + 1,)
    return from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=beta_max))


def edm(steps: int = 1000, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """Unit signal, sigma^(1/rho) uniform. Source: Karras et al. (2022), arXiv:2206.00364, equation 5.

    Raises: ValueError unless 0 < sigma_min < sigma_max.
    """
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"sigma_min and sigma_max must be positive and rising; got {sigma_min}, {sigma_max}")
    root = torch.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), steps, dtype=torch.float64)
    sigma = torch.cat([root.new_zeros(1), root**rho])  # (T + 1,)
    return Schedule(torch.ones_like(sigma), sigma)


def posterior(s: Level, t: Level) -> Posterior:
    """Gaussian q(x_s | x_t, x_0) of an earlier level s, by Bayes' rule.

    Source: Ho, Jain and Abbeel (2020), equations 6 and 7, for any pair of levels.
    """
    ratio = t.alpha / s.alpha
    forward = t.sigma**2 - ratio**2 * s.sigma**2  # of q(x_t | x_s); beta_t when s = t - 1
    of_x, of_x0 = ratio * s.sigma**2 / t.sigma**2, s.alpha * forward / t.sigma**2
    return Posterior(of_x, of_x0, s.sigma**2 * forward / t.sigma**2, forward)
