"""Guides over the unconstrained vector against closed forms, and against plain reparametrisation."""

import math

import pytest
import torch

from inference.svi.flow import Flow
from inference.svi.guides import FullRank, LowRank, MeanField, normal_log_prob

pytestmark = pytest.mark.usefixtures("double_precision")
DIM = 3
GUIDES = [MeanField(DIM), FullRank(DIM), LowRank(DIM, 2), Flow(DIM, layers=2, hidden=4)]
each_guide = pytest.mark.parametrize("guide", GUIDES, ids=lambda g: type(g).__name__)


def some_phi(guide, restarts=1):
    phi = guide.start(torch.randn(1, DIM), 0.3 * torch.randn(1, DIM))
    return guide.retract(phi, 0.5 * torch.randn(1, guide.size)).expand(restarts, -1).contiguous()


def covariance(guide, phi):
    if isinstance(guide, MeanField):
        return torch.diag((2 * phi[0, DIM:]).exp())
    if isinstance(guide, FullRank):
        _, factor = guide.split(phi)
        return factor[0] @ factor[0].T
    _, log_scale, w = guide.split(phi)
    scale = torch.diag(log_scale[0].exp())
    return scale @ (torch.eye(DIM) + w[0] @ w[0].T) @ scale


def target(x):
    """log p and gradient of a density that no guide here contains: a twisted normal."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        bend = x[..., 1] - 0.5 * x[..., 0].square()
        log_p = -0.5 * (x[..., 0].square() + 2 * bend.square() + (x[..., 2] - x[..., 0]).square())
        (grad,) = torch.autograd.grad(log_p.sum(), x)
    return log_p.detach(), grad


@each_guide
def test_start_is_independent_normals(guide):
    loc, log_scale = torch.randn(1, DIM), torch.randn(1, DIM)
    phi = guide.start(loc, log_scale)
    assert phi.shape == (1, guide.size)
    noise = torch.randn(1, 50_000, guide.noise)
    x, _ = guide.draw(phi, noise)
    torch.testing.assert_close(x.mean(1), loc, rtol=0, atol=float(5 * log_scale.exp().max() / 50_000**0.5))
    torch.testing.assert_close(x.std(1), log_scale.exp(), rtol=0.02, atol=0)


@pytest.mark.parametrize("guide", GUIDES[:3], ids=lambda g: type(g).__name__)
def test_gaussian_guides_know_their_density(guide):
    phi = some_phi(guide)
    noise = torch.randn(1, 20, guide.noise)
    x, log_q = guide.draw(phi, noise)
    q = torch.distributions.MultivariateNormal(phi[0, :DIM], covariance(guide, phi))
    torch.testing.assert_close(log_q[0], q.log_prob(x[0]), rtol=1e-10, atol=1e-10)


def test_flow_knows_its_density():
    guide = GUIDES[3]
    phi, noise = some_phi(guide), torch.randn(DIM)

    def one(eps):
        return guide.draw(phi, eps[None, None])[0][0, 0]

    _, log_q = guide.draw(phi, noise[None, None])
    _, log_det = torch.linalg.slogdet(torch.autograd.functional.jacobian(one, noise))
    torch.testing.assert_close(log_q[0, 0], normal_log_prob(noise) - log_det, rtol=1e-10, atol=1e-10)
    _, _, weights = guide._split(phi)
    z, forward = guide._forward(weights, noise[None, None])
    backward = guide._log_prob(weights, z)
    torch.testing.assert_close(backward, normal_log_prob(noise[None, None]) - forward, rtol=1e-10, atol=1e-10)


@each_guide
def test_retracting_by_nothing_changes_nothing(guide):
    phi = some_phi(guide)
    torch.testing.assert_close(guide.retract(phi, torch.zeros_like(phi)), phi, rtol=0, atol=1e-15)


def factors(guide):
    """What `gradient` leaves out of the exact derivative, by coordinate."""
    factor = torch.ones(guide.size)
    if isinstance(guide, FullRank):
        below = torch.ones(DIM, DIM).tril(-1) / math.sqrt(DIM) + torch.eye(DIM)
        factor[DIM:] = below.flatten()
    if isinstance(guide, Flow):
        factor[2 * DIM :] = 0.1
    return factor


@each_guide
def test_path_gradient_is_unbiased(guide):
    """Its mean is that of the plain reparametrisation gradient, whose score term has mean zero."""
    restarts, particles = 2000, 32
    phi, noise = some_phi(guide, restarts), torch.randn(restarts, particles, guide.noise)
    x, _ = guide.draw(phi, noise)
    _, grad = target(x)
    path = guide.gradient(phi, noise, grad) * factors(guide)  # (R, size)
    step = torch.zeros(restarts, guide.size, requires_grad=True)
    x, log_q = guide.draw(guide.retract(phi, step), noise)
    elbo = ((x * grad).sum(-1) - log_q).mean(1).sum()
    (plain,) = torch.autograd.grad(elbo, step)
    gap = path.mean(0) - plain.mean(0)
    error = ((path - plain).var(0) / restarts).sqrt()
    assert (gap.abs() <= 5 * error + 1e-10).all(), (gap / error).tolist()
    assert path.abs().max() > 0.1


@pytest.mark.parametrize("guide", GUIDES[:3], ids=lambda g: type(g).__name__)
def test_no_noise_is_left_where_the_guide_is_the_posterior(guide):
    phi, noise = some_phi(guide, 5), torch.randn(5, 7, guide.noise)
    x, _ = guide.draw(phi, noise)
    grad = -torch.linalg.solve(covariance(guide, phi), (x - phi[:1, None, :DIM]).mT).mT
    assert guide.gradient(phi, noise, grad).abs().max() < 1e-10


def test_steps_do_not_depend_on_units():
    """Rescaling x rescales the guide, and leaves the gradient in its own coordinates as it was."""
    guide, noise = FullRank(DIM), torch.randn(1, 9, DIM)
    phi, unit = some_phi(guide), torch.tensor([1e-3, 1.0, 1e4])
    loc, factor = guide.split(phi)
    other = torch.cat([loc * unit, (unit[:, None] * factor).flatten(1)], -1)
    _, grad = target(guide.draw(phi, noise)[0])
    torch.testing.assert_close(guide.gradient(other, noise, grad / unit), guide.gradient(phi, noise, grad))
