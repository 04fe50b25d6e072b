"""Steering a trained network: by a classifier's gradient, or by its own conditional answer."""

from collections.abc import Callable

import torch
from torch import Tensor

from ppmodels.diffusion.parametrisation import Network
from ppmodels.diffusion.schedule import Schedule

ConditionalNetwork = Callable[[Tensor, Tensor, Tensor], Tensor]
Classifier = Callable[[Tensor, Tensor], Tensor]


def classifier(
    network: Network,
    log_label: Classifier,
    label: Tensor | None,
    schedule: Schedule,
    guidance_scale: float = 1.0,
) -> Network:
    r"""The noise network of :math:`p(x)\,p(y \mid x)^s`.

    .. math:: \hat\epsilon(x_t) - s\,\sigma_t \nabla_{x_t} \log p(y \mid x_t)

    log_label: (x (B, ...), t (B,)) -> (B, K), the classifier's log probabilities of noisy data.
    label: the class wanted, (B,). guidance_scale: s; 1 is the exact conditional when both are exact.

    Raises: ValueError without labels.
    Source: Dhariwal and Nichol (2021), arXiv:2105.05233, algorithm 2.
    """
    if label is None:
        raise ValueError("classifier guidance needs a label for every row, (B,)")

    def guided(x: Tensor, t: Tensor) -> Tensor:
        _check(label, x)
        sigma = schedule.level(t, x)[1]
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            chosen = log_label(leaf, t).gather(-1, label[:, None])  # (B, 1)
            (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
        return network(x, t) - guidance_scale * sigma * gradient

    return guided


def classifier_free(
    network: Callable[..., Tensor],
    label: Tensor | None,
    guidance_scale: float = 1.0,
    null_label: int | None = None,
) -> Network:
    r"""The network's own guidance: :math:`\hat\epsilon(x) + w (\hat\epsilon(x, y) - \hat\epsilon(x))`.

    guidance_scale: w. 1 is conditional, 0 unconditional; it is :math:`1 + \rho` of
    :math:`(1 + \rho)\hat\epsilon(x, y) - \rho\,\hat\epsilon(x)`. One call on twice the rows gives both.
    null_label: the label that means none, as in training with `drop_labels`. Without labels the network is
    returned as it is.

    Raises: ValueError for a guidance scale other than 1 without labels or without a null label.
    Source: Ho and Salimans (2022), arXiv:2207.12598, equation 6.
    """
    if label is None:
        if guidance_scale != 1:
            raise ValueError(f"guidance_scale {guidance_scale} needs a label for every row, (B,)")
        return network
    if guidance_scale != 1 and null_label is None:
        raise ValueError(f"guidance_scale {guidance_scale} needs null_label, the label that means none")

    def guided(x: Tensor, t: Tensor) -> Tensor:
        _check(label, x)
        if null_label is None or guidance_scale == 1:
            return network(x, t, label)
        both = torch.cat([label, torch.full_like(label, null_label)])
        conditional, free = network(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return torch.lerp(free, conditional, guidance_scale)

    return guided


def drop_labels(
    label: Tensor, null_label: int, probability: float = 0.1, generator: torch.Generator | None = None
) -> Tensor:
    """Labels of which a share is replaced by the null label, (B,): one network learns both answers."""
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must lie between 0 and 1; got {probability}")
    drawn = torch.rand(label.shape, generator=generator, device=label.device)
    return torch.where(drawn < probability, torch.full_like(label, null_label), label)


def _check(label: Tensor, x: Tensor) -> None:
    if label.shape != x.shape[:1]:
        raise ValueError(f"labels must be ({len(x)},), one a row; got {tuple(label.shape)}")
