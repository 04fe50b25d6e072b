"""The mode of a concave population model, and the curvature there: all neurons at once, block by block of bins."""

import logging
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppmodels.base import Data, Peak, Theta
from ppmodels.population._bank import Bank
from ppmodels.population._climb import Ascent, climb
from ppmodels.population._law import Law

log = logging.getLogger("ppmodels")
ROUND = 15  # steps after which a climb that is not over gets a better guide
GUESS = 10**11  # multiplications that a guess of the Hessians may take
SLICE = 2**23  # numbers that the drives of a block at many draws may take


def peak(
    model: Any, data: Data, curvature: bool = False, start: Theta | None = None, num_steps: int = 200
) -> Peak | None:
    """Return the mode, with its curvature on request; None where the law or the priors are not concave together.

    One Gram matrix of the shared features, scaled by each neuron's mean rate, is so near to every neuron's Hessian
    that L-BFGS takes about ten steps, each two matrix products for the whole population.
    """
    if not is_concave(model) or data.index is not None:
        return None
    problem = _Problem(model, data)
    begin = None if start is None else problem.bank.weights(start).double()
    ascent = problem.climb(begin, num_steps)
    weights, value, decrement, factor = ascent.x, ascent.value, ascent.decrement, None
    if curvature or problem.work <= GUESS // 10:  # Newton's step costs little then, and leaves nothing to gain
        weights, value, decrement, factor = problem.polish(weights)
    stuck = [data.coords["neuron"][n] if "neuron" in data.coords else n for n in range(len(value))]
    stuck = [name for name, left in zip(stuck, decrement.tolist(), strict=True) if not left <= max(1e-3, problem.tol)]
    if stuck:
        log.warning("neuron %s is not at its mode after %d steps", ", ".join(map(str, stuck)), ascent.steps)
    return problem.found(weights, value, decrement, factor if curvature else None, ascent.steps)


def is_concave(model: Any) -> bool:
    """Is the log posterior concave, with Gaussian priors?"""
    gaussian = {"ridge", "smooth"}
    return model.law.concave and model.filters in gaussian and model.couplings in gaussian


def curvatures(model: Any, data: Data) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return priors' means (N, P) and precisions (N, P, P), modes (N, P), and minus the Hessians there (N, P, P)."""
    problem = _Problem(model, data)
    weights, _, _, factor = problem.polish(problem.climb(None, 200).x)
    return problem.mean.expand_as(weights), problem.precision, weights, factor @ factor.mT


class _Problem:
    """Each neuron's log posterior as a function of its weights, (N, P), over one bank of features."""

    def __init__(self, model: Any, data: Data) -> None:
        like = data.observed["counts"]
        self.law, self.bank = model.law, Bank(model, data, model.windows(like))
        self.mask = self.bank.mask()
        self.mean, self.precision = (x.to(like.device) for x in self.bank.prior())
        self.dtype = like.dtype
        self.tol, self.rounding = (1e-12, 1e-14) if self.dtype == torch.float64 else (1e-4, 1e-9)
        self.constant = _left_out(self.law, data)

    @property
    def work(self) -> int:
        """Multiplications that all Hessians take."""
        rows, bins, neurons = self.bank.data.observed["counts"].shape
        return rows * bins * neurons * self.mask.shape[1] ** 2

    def climb(self, weights: Tensor | None, num_steps: int) -> Ascent:
        """Climb in rounds: where the Gram matrix was no good guide, Hessians on some of the bins are the next one."""
        x, factor = self.start(weights)
        steps = passes = 0
        while True:
            some = min(ROUND, num_steps - steps)
            found = climb(self.value_and_grad, x, factor, self.tol, some, self.rounding)
            steps, passes = steps + found.steps, passes + found.passes
            if found.steps < some or steps >= num_steps:
                return replace(found, steps=steps, passes=passes)
            x, factor = found.x, torch.linalg.cholesky(self.hessian(found.x, thin=True))

    def start(self, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights (N, P) at the mean rates, or those given; and Cholesky factors (N, P, P) of near Hessians."""
        gram = total = bins = self.mean.new_zeros((), dtype=torch.float64)
        for x, y, seen in self.bank.blocks():
            gram = gram + (x.mT @ x).double()
            total, bins = total + torch.where(seen, y, 0.0).sum(0).double(), bins + seen.sum(0).double()
        mean = (total + 0.5) / (bins + 1.0)  # (N,), spikes a bin
        begin = self.mean.expand_as(self.mask).clone()
        begin[:, 0] = _drive_of(self.law, mean)
        weights = begin if weights is None else weights
        _, _, curve = _slopes(self.law, mean, begin[:, 0], curvature=True)
        share = bins / bins.max().clamp(min=1)
        near = self.precision + (curve * share)[:, None, None] * gram  # (N, P, P)
        return weights, torch.linalg.cholesky(self._masked(near))

    def value_and_grad(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Log posterior of each neuron, (N,), and its gradient, (N, P), both in float64."""
        inner = weights.to(self.dtype)
        value, grad = torch.zeros_like(weights[:, 0]), torch.zeros_like(weights)
        for x, y, seen in self.bank.blocks():
            each, slope, _ = _slopes(self.law, y, x @ inner.mT)
            value = value + torch.where(seen, each, 0.0).sum(0, dtype=torch.float64)
            grad = grad + (torch.where(seen, slope, 0.0).mT @ x).double()
        away = weights - self.mean  # (N, P)
        pull = (self.precision @ away[..., None])[..., 0]
        value = (value - 0.5 * (away * pull).sum(-1)).nan_to_num(-math.inf, -math.inf, -math.inf)
        return value, (grad - pull) * self.mask

    def hessian(self, weights: Tensor, thin: bool = False) -> Tensor:
        """Minus the Hessian of each neuron's log posterior, (N, P, P); thin: guessed from every so many-th bin."""
        inner, total = weights.to(self.dtype), self.precision.clone()
        every = max(1, self.work // GUESS) if thin else 1
        for x, y, seen in self.bank.blocks():
            x, y, seen = x[::every], y[::every], seen[::every]
            _, _, curve = _slopes(self.law, y, x @ inner.mT, curvature=True)
            curve = torch.where(seen, curve, 0.0) * every
            for n in range(len(total)):
                total[n] += ((x * curve[:, n, None]).mT @ x).double()
        return self._masked(total)

    def polish(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One of Newton's steps from the end of a climb: weights, values, what is left to gain, Cholesky factors."""
        factor = torch.linalg.cholesky(self.hessian(weights))
        _, grad = self.value_and_grad(weights)
        weights = weights + torch.cholesky_solve(grad[..., None], factor)[..., 0]
        value, grad = self.value_and_grad(weights)
        decrement = 0.5 * (grad * torch.cholesky_solve(grad[..., None], factor)[..., 0]).sum(-1)
        return weights, value, decrement, factor

    def found(self, weights: Tensor, value: Tensor, decrement: Tensor, factor: Tensor | None, steps: int) -> Peak:
        """The answer in the model's own sites; log densities with their constants."""
        prior = self._masked(self.precision)
        log_det = torch.linalg.cholesky(prior).diagonal(dim1=-2, dim2=-1).log().sum(-1)
        size = self.mask.double().sum(-1)
        constant = (log_det - 0.5 * size * math.log(2 * math.pi)).sum() - self.constant
        theta = self._sites(weights)
        total, left = float(value.sum() + constant), float(decrement.sum())
        if factor is None:
            return Peak(theta, total, left, steps)
        half = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # (N,)
        evidence = total + float((0.5 * size * math.log(2 * math.pi) - half).sum())

        def draw(number: int, generator: torch.Generator) -> tuple[Theta, Tensor]:
            z = torch.randn(number, *weights.shape, generator=generator, dtype=torch.float64, device=weights.device)
            z = z * self.mask
            x = weights + torch.linalg.solve_triangular(factor.mT, z.movedim(0, -1), upper=True).movedim(-1, 0)
            log_q = -0.5 * z.square().sum(-1)
            return self._sites(x), self._log_ratio(x, log_q)

        return Peak(theta, total, left, steps, evidence, draw)

    def _sites(self, weights: Tensor) -> Theta:
        """The sites' values, filters lag by lag among them where draws hold them."""
        values = {name: v.to(self.dtype) for name, v in self.bank.theta(weights * self.mask).items()}
        return self.bank.model.with_filters(values)

    def _log_ratio(self, x: Tensor, log_q: Tensor, number: int = 200) -> Tensor:
        """Log p - log q, less a constant, of the first draws of each neuron, (N, S): how good the Gaussian is."""
        x, log_q = x[:number], log_q[:number]  # (S, N, P), (S, N)
        away = x - self.mean
        value = -0.5 * torch.einsum("snp,npq,snq->sn", away, self.precision, away)
        flat = x.flatten(0, 1).to(self.dtype).mT  # (P, S N)
        for features, counts, observed in self.bank.blocks():
            for part in torch.arange(len(features)).split(max(1, SLICE // flat.shape[1])):
                drive = (features[part] @ flat).unflatten(1, log_q.shape)  # (n, S, N)
                each = _value(self.law, counts[part, None], drive)
                value = value + torch.where(observed[part, None], each, 0.0).sum(0, dtype=torch.float64)
        return (value - log_q).mT

    def _masked(self, matrices: Tensor) -> Tensor:
        """Matrices (N, P, P) with the identity where a neuron weighs nothing."""
        pair = self.mask[:, :, None] & self.mask[:, None, :]
        return torch.where(pair, matrices, torch.eye(self.mask.shape[1]).to(matrices))


def _slopes(law: Law, y: Tensor, drive: Tensor, curvature: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Log p without what is constant, its slope, and minus its curvature, by the drive; element by element."""
    if law.observation == "poisson" and law.link == "exp":
        mean = drive.exp() * law.bin_size
        return y * drive - mean, y - mean, mean
    with torch.enable_grad():
        drive = drive.detach().requires_grad_()
        value = _value(law, y, drive)
        (slope,) = torch.autograd.grad(value.sum(), drive, create_graph=curvature)
        curve = -torch.autograd.grad(slope.sum(), drive)[0] if curvature else slope
    return value.detach(), slope.detach(), curve.detach()


def _value(law: Law, y: Tensor, drive: Tensor) -> Tensor:
    if law.observation == "poisson":
        log_mean = law.log_mean(drive)
        constant = math.log(law.bin_size) if law.link == "exp" else 0.0  # as in the closed form above
        return y * (log_mean - constant) - log_mean.exp()
    return law.log_prob(y, drive)


def _left_out(law: Law, data: Data) -> float:
    """What `_slopes` leaves out of minus the log likelihood: the sum of log y! - y log bin_size over the bins seen."""
    if law.observation != "poisson":
        return 0.0
    counts, seen = data.observed["counts"], data.given["seen"] > 0
    rate = math.log(law.bin_size) if law.link == "exp" else 0.0
    total = torch.where(seen, counts, 0.0).sum(dtype=torch.float64)
    return float(torch.lgamma(counts[seen & (counts > 1)].double() + 1).sum() - rate * total)


def _drive_of(law: Law, mean: Tensor) -> Tensor:
    """The drive at which a bin has this mean count, by bisection."""
    low, high = torch.full_like(mean, -40.0), torch.full_like(mean, 40.0)
    for _ in range(80):
        middle = (low + high) / 2
        above = law.mean(middle) > mean
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2
