"""Which times a sampler visits."""

import torch
from torch import Tensor

SPACINGS = ("linspace", "leading", "trailing", "log_snr", "karras", "angle", "balanced")


def timesteps(log_snr: Tensor, steps: int, spacing: str, start: float | None) -> Tensor:
    """Falling times that end in 0, (steps + 1,): integers, or fractions for log_snr, karras, angle and balanced.

    log_snr: log(alpha / sigma) at t = 0..T, (T + 1,).
    """
    last = len(log_snr) - 1 if start is None else start
    if spacing not in SPACINGS:
        raise ValueError(f"no spacing {spacing!r}; there are: {', '.join(SPACINGS)}")
    if not 1 <= last <= len(log_snr) - 1:
        raise ValueError(f"a sampler starts between 1 and {len(log_snr) - 1}; got {last}")
    whole = spacing in ("linspace", "leading", "trailing")
    if steps < 1 or (whole and steps > last):
        most = f"between 1 and {int(last)}" if whole else "positive"
        raise ValueError(f"num_inference_steps must be {most}; got {steps}")
    if whole:
        times = _whole(int(last), steps, spacing)
        return torch.cat([times, times.new_zeros(1)])
    knots = torch.arange(1, len(log_snr)).to(log_snr)  # (T,)
    ruler = _ruler(log_snr[1:], spacing)  # (T,), rises
    first = _interpolate(knots.new_tensor([last]), knots, ruler)
    wanted = torch.lerp(ruler[:1], first, torch.linspace(1, 0, steps).to(knots))  # (steps,)
    times = _interpolate(wanted, ruler, knots)
    times[0] = last
    return torch.cat([times, times.new_zeros(1)])


def _ruler(log_snr: Tensor, spacing: str) -> Tensor:
    """What the steps are even in, (T,): it rises with the noise."""
    if spacing == "log_snr":
        return -log_snr
    if spacing == "karras":
        return (-log_snr / 7).exp()
    angle = (-log_snr).exp().atan()
    if spacing == "angle":
        return angle
    # Half of the steps are even in the logarithm, which resolves every scale; half in the angle between
    # signal and noise, which changes where the samples decide what they will be.
    return _unit(-log_snr) + _unit(angle)


def _unit(ruler: Tensor) -> Tensor:
    """Stretched to run from 0 to 1."""
    return (ruler - ruler[0]) / (ruler[-1] - ruler[0]).clamp(min=1e-12)


def _whole(last: int, steps: int, spacing: str) -> Tensor:
    if spacing == "linspace":
        return torch.linspace(last, 1, steps, dtype=torch.float64).round().long()
    if spacing == "leading":
        return 1 + (last // steps) * torch.arange(steps - 1, -1, -1)
    return (last * (1 - torch.arange(steps, dtype=torch.float64) / steps)).round().long()


def _interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear function through (knots, values), clamped at its ends."""
    if len(knots) == 1:
        return values.expand(x.shape).clone()
    right = torch.searchsorted(knots, x).clamp(1, len(knots) - 1)
    part = (x - knots[right - 1]) / (knots[right] - knots[right - 1])
    return torch.lerp(values[right - 1], values[right], part.clamp(0, 1))
