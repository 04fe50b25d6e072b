r"""Solvers of the probability flow that need few evaluations of the network.

In :math:`y = x / \alpha`, :math:`r = \sigma / \alpha` the flow is :math:`dy / dr = \hat\epsilon`; against
:math:`\lambda = -\log r` its linear part is solved exactly. Every solver ends with one first-order step to
the data, where r = 0, which is the network's x0.

Shared arguments: x is the noise at T, or what is known at the time `start`, (B, ...); `spacing` is the grid's,
as in `Schedule.grid`; callback is called with the step's number, the time reached and x.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from torch import Tensor

from ppmodels.diffusion._multistep import adams_bashforth, exponential
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.schedule import Level

Callback = Callable[[int, float, Tensor], Any]


def dpmpp_2m(
    denoiser: Denoiser,
    x: Tensor,
    *,
    num_inference_steps: int = 20,
    spacing: str = "balanced",
    start: float | None = None,
    callback: Callback | None = None,
) -> Tensor:
    r"""DPM-Solver++ of order 2, multistep: one evaluation a step.

    .. math:: x_s = \tfrac{\sigma_s}{\sigma_t} x_t + \alpha_s (1 - e^{-h}) \bigl(\hat x_0 +
        \tfrac{h}{2 h'} (\hat x_0 - \hat x_0')\bigr), \quad h = \lambda_s - \lambda_t

    where h' and x0' belong to the step before.

    Source: Lu et al. (2022), arXiv:2211.01095, algorithm 2.
    """
    grid = denoiser.schedule.grid(num_inference_steps, spacing, start)
    before: tuple[Tensor, float] | None = None
    for i, (t, s) in enumerate(pairwise(grid)):
        x0 = denoiser.x0(x, t)
        if s.sigma == 0:
            x = s.alpha * x0
        else:
            h = _log_snr(s) - _log_snr(t)
            guess = x0
            if before is not None:
                guess = x0 + h / (2 * before[1]) * (x0 - before[0])
            x = (s.sigma / t.sigma * x).add_(guess, alpha=-s.alpha * math.expm1(-h))
            before = x0, h
        if callback:
            callback(i, s.t, x)
    return x


def dpmpp_3m(
    denoiser: Denoiser,
    x: Tensor,
    *,
    num_inference_steps: int = 20,
    spacing: str = "log_snr",
    start: float | None = None,
    callback: Callback | None = None,
) -> Tensor:
    r"""Order 3, multistep: the polynomial through the last three x0, integrated; one evaluation a step.

    .. math:: x_s = \tfrac{\sigma_s}{\sigma_t} x_t + \alpha_s
        \int_{\lambda_t}^{\lambda_s} e^{u - \lambda_s}\, \hat x_0(u)\, du

    Grids that are uneven in lambda make it unstable; keep to log_snr.

    Source: Lu et al. (2022), arXiv:2211.01095, equation 9; Hochbruck and Ostermann (2010), Acta Numerica 19.
    """
    grid = denoiser.schedule.grid(num_inference_steps, spacing, start)
    past: list[tuple[float, Tensor]] = []
    for i, (t, s) in enumerate(pairwise(grid)):
        x0 = denoiser.x0(x, t)
        if s.sigma == 0:
            x = s.alpha * x0
        else:
            past = [(_log_snr(t), x0), *past][:3]
            x = s.sigma / t.sigma * x
            weights = exponential([known[0] for known in past], _log_snr(s))
            for weight, (_, value) in zip(weights, past, strict=True):
                x = x.add_(value, alpha=s.alpha * weight)
        if callback:
            callback(i, s.t, x)
    return x


def heun(
    denoiser: Denoiser,
    x: Tensor,
    *,
    num_inference_steps: int = 10,
    variable: str = "angle",
    spacing: str | None = None,
    start: float | None = None,
    callback: Callback | None = None,
) -> Tensor:
    r"""Heun's rule, in one of two variables: 2 num_inference_steps - 1 evaluations.

    `angle`: with :math:`\phi = \arctan(\sigma / \alpha)` a variance preserving flow is :math:`dx / d\phi = v`, as
    smooth at the noise as at the data. What signal and noise do alone is a rotation, taken exactly,

    .. math:: \hat x_s = \cos\delta\, x_t + \sin\delta\, v_t, \quad
        x_s = \hat x_s + \tan\tfrac{\delta}{2} \bigl(v(\hat x_s) - \cos\delta\, v_t + \sin\delta\, x_t\bigr),
        \quad \delta = \phi_s - \phi_t

    `sigma`: the rule for dy / dr.

    spacing: even in the angle, or `karras` for sigma, unless said.
    Source: Karras et al. (2022), arXiv:2206.00364, algorithm 1, for sigma; Salimans and Ho (2022),
    arXiv:2202.00512, appendix D, for the flow in the angle.
    """
    if variable not in ("angle", "sigma"):
        raise ValueError(f"no variable {variable!r}; there are: angle, sigma")
    step, usual = (_heun_angle, "angle") if variable == "angle" else (_heun_sigma, "karras")
    for i, (t, s) in enumerate(pairwise(denoiser.schedule.grid(num_inference_steps, spacing or usual, start))):
        x = step(denoiser, x, t, s)
        if callback:
            callback(i, s.t, x)
    return x


def pndm(
    denoiser: Denoiser,
    x: Tensor,
    *,
    num_inference_steps: int = 20,
    order: int = 4,
    spacing: str = "balanced",
    start: float | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Linear multistep: DDIM's transfer of a slope extrapolated from up to `order` evaluations.

    The weights are Adams and Bashforth's for the levels as they lie in r; where these are equally far apart,
    (55, -59, 37, -9) / 24 at order 4. The first steps use what there is, at one evaluation each.

    Source: Liu et al. (2022), arXiv:2202.09778, equations 9 and 12.
    """
    if not 1 <= order <= 4:
        raise ValueError(f"order must be 1, 2, 3 or 4; got {order}")
    grid = denoiser.schedule.grid(num_inference_steps, spacing, start)
    past: list[tuple[float, Tensor]] = []
    for i, (t, s) in enumerate(pairwise(grid)):
        past = [(t.sigma / t.alpha, denoiser.epsilon(x, t)), *past][: order if s.sigma > 0 else 1]
        weights = adams_bashforth([r for r, _ in past], s.sigma / s.alpha)
        slope = weights[0] * past[0][1]
        for weight, (_, older) in zip(weights[1:], past[1:], strict=True):
            slope = slope.add_(older, alpha=weight)
        x = _euler(x, slope, t, s)
        if callback:
            callback(i, s.t, x)
    return x


def _heun_angle(denoiser: Denoiser, x: Tensor, t: Level, s: Level) -> Tensor:
    turn = math.atan2(s.sigma, s.alpha) - math.atan2(t.sigma, t.alpha)
    growth = math.hypot(s.alpha, s.sigma) / math.hypot(t.alpha, t.sigma)  # 1 where variance is preserved
    cos, sin = growth * math.cos(turn), growth * math.sin(turn)
    v = denoiser.predict(x, t, "v")
    turned, kept = (cos * x).add_(v, alpha=sin), (cos * v).sub_(x, alpha=sin)
    if s.sigma == 0:
        return turned
    return turned.add_(denoiser.predict(turned, s, "v") - kept, alpha=math.tan(turn / 2))


def _heun_sigma(denoiser: Denoiser, x: Tensor, t: Level, s: Level) -> Tensor:
    first = denoiser.epsilon(x, t)
    guess = _euler(x, first, t, s)
    if s.sigma == 0:
        return guess
    return _euler(x, (first + denoiser.epsilon(guess, s)) / 2, t, s)


def _euler(x: Tensor, slope: Tensor, t: Level, s: Level) -> Tensor:
    """What x becomes at s when dy / dr keeps this slope."""
    ratio = s.alpha / t.alpha
    return (ratio * x).add_(slope, alpha=s.sigma - ratio * t.sigma)


def _log_snr(level: Level) -> float:
    return math.log(level.alpha / level.sigma)
