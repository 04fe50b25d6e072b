"""Priors of filters, as weights on an orthonormal basis whose functions have mean square one over the window."""

import math
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppmodels.base import Theta, dims
from ppmodels.population._windows import Windows

FilterPrior = Literal["ridge", "smooth", "ald"]
CouplingPrior = Literal["ridge", "smooth", "ard", "group", "horseshoe"]
LENGTH = 0.15  # of the window: over which a smooth filter keeps its value


def latents(model: Any, own: Windows) -> Theta:
    """Sample the latents of one neuron of a coupled model; in a plate, of all."""
    zero, rest, others = own.stimulus.new_zeros(()), model.law.rest, model.neurons - 1
    theta = {"baseline": pyro.sample("baseline", dist.Normal(zero + rest, model.spread))}
    own_filters = (("stimulus_weight", own.stimulus, model.stimuli), ("history_weight", own.history, None))
    for name, basis, filters in own_filters:
        if basis.shape[1] and filters != 0:
            theta[name] = filter_weights(name, model.filters, basis, filters, model.scale)
    if own.coupling.shape[1] and others:
        theta["coupling_weight"] = coupling_weights(model.couplings, own.coupling, others, model.scale)
    if model.observation == "negative-binomial":
        theta["dispersion"] = pyro.sample("dispersion", dist.LogNormal(zero - 1.0, 1.0))
    return theta


def filter_weights(name: str, kind: str, basis: Tensor, filters: int | None, scale: float) -> Tensor:
    """Sample the weights of some filters, (filters, K), or of one, (K,), where `filters` is None.

    ridge: independent. smooth: the filter is a Gaussian process with a squared exponential kernel. ald: besides,
    its variance falls off around a centre, and centre, width and length are learned for each filter.

    Source: Sahani and Linden (2003), NIPS 15, for smoothness; Park and Pillow (2011), PLoS Comput. Biol. 7, for ALD.
    """
    several = () if filters is None else (filters,)
    event, zeros = len(several), basis.new_zeros(*several, basis.shape[1])
    if kind == "ridge":
        law = dist.Normal(zeros, scale).to_event(event + 1)
        return pyro.sample(name, law, infer=dims(*_names(name)[1 - event :]))
    if kind == "smooth":
        tril = smooth_factor(basis, scale).expand(*several, -1, -1)
    else:
        zero = basis.new_zeros(several)
        center = pyro.sample(f"{name}_center", dist.Beta(zero + 1.5, zero + 1.5).to_event(event))  # share of window
        width = pyro.sample(f"{name}_width", dist.LogNormal(zero + math.log(0.5), 0.7).to_event(event))
        length = pyro.sample(f"{name}_length", dist.LogNormal(zero + math.log(LENGTH), 0.5).to_event(event))
        tril = _local_factor(basis, scale, center, width, length)
    law = dist.MultivariateNormal(zeros, scale_tril=tril).to_event(event)
    return pyro.sample(name, law, infer=dims(*_names(name)[1 - event :]))


def coupling_weights(kind: str, basis: Tensor, others: int, scale: float) -> Tensor:
    """Sample the weights of the couplings onto one neuron, (M, K).

    ard: each pair has a precision of its own, learned. group: a pair's weights have density exp(-norm / scale), so
    that whole pairs vanish. horseshoe: a share of pairs, learned, is free up to `scale`, the others are at zero.

    Source: Neal (1996), section 1.2 (ARD); Kyung et al. (2010), Bayesian Analysis 5, equation 20 (group lasso);
        Piironen and Vehtari (2017), Electronic J. Statistics 11, section 2.3 (regularised horseshoe).
    """
    if kind in ("ridge", "smooth"):
        return filter_weights("coupling_weight", kind, basis, others, scale)
    functions, one = basis.shape[1], basis.new_ones(others)
    if kind == "ard":
        precision = pyro.sample("coupling_precision", dist.Gamma(one, one).to_event(1), infer=dims("other"))
        spread = scale * precision.rsqrt()
    elif kind == "group":
        law = dist.Gamma((functions + 1) / 2 * one, one / 2)  # of the variance: the mixture that is a group lasso
        spread = scale * pyro.sample("coupling_variance", law.to_event(1), infer=dims("other")).sqrt()
    else:
        total = pyro.sample("coupling_global", dist.HalfCauchy(basis.new_tensor(0.1)))
        local = total[..., None] * pyro.sample("coupling_local", dist.HalfCauchy(one).to_event(1), infer=dims("other"))
        spread = scale * local / (1 + local.square()).sqrt()
    plain = dist.Normal(basis.new_zeros(others, functions), 1.0).to_event(2)
    value = spread[..., None] * pyro.sample("coupling_z", plain, infer=dims("other", "coupling_function"))
    named: Any = {"_deterministic": True, **dims("other", "coupling_function")}  # pyro.deterministic names no axes
    return pyro.sample("coupling_weight", dist.Delta(value, event_dim=2).mask(False), obs=value, infer=named)


def smooth_factor(basis: Tensor, scale: float) -> Tensor:
    """Return the Cholesky factor, (K, K), of the covariance of a smooth filter's weights."""
    return _local_factor(basis, scale, None, None, basis.new_tensor(LENGTH))


def _local_factor(basis: Tensor, scale: float, center: Tensor | None, width: Tensor | None, length: Tensor) -> Tensor:
    """Cholesky factor (..., K, K) of B' C B / W^2 of a covariance C (W, W) over the window, B'B = W I."""
    bins = len(basis)
    share = (torch.arange(bins, device=basis.device, dtype=basis.dtype) + 0.5) / bins  # (W,)
    gap = share[:, None] - share
    covariance = (-0.5 * (gap / length[..., None, None]).square()).exp()  # (..., W, W)
    if center is not None and width is not None:
        decay = (-0.25 * ((share - center[..., None]) / width[..., None]).square()).exp()  # (..., W)
        covariance = decay[..., :, None] * covariance * decay[..., None, :]
    inner = basis.mT @ covariance @ basis / bins**2  # (..., K, K)
    eye = torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    return scale * torch.linalg.cholesky(inner + 1e-4 * eye)


def _names(name: str) -> tuple[str, str]:
    kind = name.removesuffix("_weight")
    return ("other" if kind == "coupling" else kind), f"{kind}_function"
