"""Repair of probabilities by one number, or by two, learned on rows that the classifier was not trained on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.scoring.proper import check_label

NEWTON_STEPS = 100


def temperature(logits: Any, label: Any) -> float:
    r"""Return the T that makes softmax(logits / T) likeliest; the order of the classes stays as it is.

    .. math:: \hat T = \arg\max_T \sum_n \log \mathrm{softmax}(l_n / T)_{y_n}

    which is concave in 1 / T. logits: (N, C), or of class 1 against class 0, (N,). label: (N,).
    Raises: ValueError when no T is best: every row is right (T to 0), or on average the logits are no better
        than chance (T to infinity).
    Source: Guo et al. (2017), On calibration of modern neural networks, equation 9.
    """
    logits, label = torch.as_tensor(logits).detach().double(), torch.as_tensor(label)
    if logits.ndim == 1:
        logits = torch.stack([torch.zeros_like(logits), logits], -1)
    check_label(label, logits.shape[1])
    logits = logits - logits.gather(1, label.long()[:, None])  # (N, C): 0 for what happened
    if (logits <= 0).all():
        raise ValueError("every row is right, so any temperature is too high; take rows that are harder")
    if not logits.mean(1).sum() < 0:
        raise ValueError("these logits are no better than chance, so any temperature is too low")
    sharpness = logits.new_ones(())  # 1 / T
    for _ in range(NEWTON_STEPS):
        share = (sharpness * logits).softmax(-1)  # (N, C)
        mean = (share * logits).sum(-1)
        slope, curvature = -mean.sum(), (share * (logits - mean[:, None]).square()).sum()
        step = slope / curvature.clamp(min=1e-300)
        # No further than a factor of two at once: a Newton step from the flat end can overshoot.
        sharpness, before = (sharpness + step).clamp(sharpness / 2, sharpness * 2), sharpness
        if (sharpness - before).abs() <= 1e-13 * sharpness:
            break
    return float(1 / sharpness)


@dataclass(frozen=True)
class Platt:
    """A sigmoid from scores to probabilities: `Platt(slope, offset)(score)` is P(class 1), (N,)."""

    slope: float
    offset: float

    def __call__(self, score: Any) -> Tensor:
        """Return the probability of class 1 at each score."""
        return (self.slope * torch.as_tensor(score).double() + self.offset).sigmoid()


def platt(score: Any, label: Any, *, smooth: bool = True) -> Platt:
    r"""Return the sigmoid of a score that makes the labels likeliest: logistic regression in one dimension.

    .. math:: P(y = 1 \mid s) = \sigma(a s + b)

    score: any number that grows with class 1, (N,). label: 0 or 1, (N,).
    smooth: aim at (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) instead of 1 and 0, with n1 and n0 rows of each class; so
        the fit exists where the score tells all rows apart. Off, it is the plain logistic fit.
    Raises: ValueError when only one class is there, or when without `smooth` no fit exists.
    Source: Platt (1999), section 2.2.1; Lin, Lin and Weng (2007), Machine Learning 68, on how to fit it.
    """
    score, label = torch.as_tensor(score).detach().double(), torch.as_tensor(label)
    check_label(label, 2)
    one = label == 1
    if one.all() or not one.any():
        raise ValueError("label must hold both classes")
    separated = score[~one].max() <= score[one].min() or score[one].max() <= score[~one].min()
    if not smooth and separated:
        raise ValueError("a threshold tells all rows apart, so the slope has no end; take smooth=True")
    high, low = (one.sum() + 1) / (one.sum() + 2), 1 / ((~one).sum() + 2)
    target = torch.where(one, high, low).double() if smooth else one.double()  # (N,)
    middle, width = score.mean(), score.std(correction=0)
    if not width > 0:
        raise ValueError("all scores are equal")
    design = torch.stack([(score - middle) / width, torch.ones_like(score)], -1)  # (N, 2)
    slope, offset = _logistic(design, target).tolist()
    return Platt(slope / float(width), offset - slope * float(middle / width))


def _logistic(design: Tensor, target: Tensor) -> Tensor:
    """Weights (2,) of the likeliest sigmoid, by Newton steps that are halved until they help."""

    def misfit(weights: Tensor) -> Tensor:
        linear = design @ weights
        return (torch.nn.functional.softplus(linear) - target * linear).sum()

    weights = design.new_zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        mean = (design @ weights).sigmoid()  # (N,)
        slope = design.mT @ (target - mean)
        if slope.abs().max() <= 1e-12 * len(target):
            break
        curvature = design.mT @ (design * (mean * (1 - mean))[:, None])
        step, here = torch.linalg.solve(curvature, slope), misfit(weights)
        while misfit(weights + step) > here and step.abs().max() > 1e-14:
            step = step / 2
        weights = weights + step
    return weights
