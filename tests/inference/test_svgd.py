"""Stein variational gradient descent: one particle climbs, many have the posterior's moments."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import svgd
from inference.svgd import direction, discrepancy

F = torch.float64
LOC, COV = torch.tensor([1.0, -2.0], dtype=F), torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=F)


def gaussian(loc, cov):
    pyro.sample("x", dist.MultivariateNormal(loc, cov))


def test_one_particle_climbs_the_gradient():
    x, grad = torch.randn(1, 5, dtype=F), torch.randn(1, 5, dtype=F)
    assert torch.equal(direction(x, grad), grad)
    fit = svgd.fit(gaussian, LOC, COV, num_samples=1, num_steps=1000)
    assert torch.allclose(fit.draws["x"][0, 0], LOC, atol=1e-3)


def test_the_direction_is_the_formulas():
    x, grad = (torch.randn(4, 3, dtype=F, generator=torch.Generator().manual_seed(i)) for i in range(2))
    apart = torch.cdist(x, x).square()
    width = apart[~torch.eye(4, dtype=torch.bool)].median() / torch.tensor(5.0, dtype=F).log()
    wanted = torch.zeros(4, 3, dtype=F)
    for i in range(4):
        for j in range(4):
            here = x[j].clone().requires_grad_()
            k = (-(here - x[i]).square().sum() / width).exp()
            wanted[i] += (k * grad[j] + torch.autograd.grad(k, here)[0]).detach() / 4
    assert torch.allclose(direction(x, grad), wanted, atol=1e-12)


def test_many_particles_have_the_posteriors_moments():
    fit = svgd.fit(gaussian, LOC, COV, num_samples=200, num_steps=600)
    x = fit.draws["x"][0]
    assert float((x.mean(0) - LOC).abs().max()) < 0.05
    assert float((torch.cov(x.T) / COV - 1).abs().max()) < 0.05
    assert fit.info["ksd"] < fit.info["ksd_start"]


def test_the_discrepancy_is_that_of_its_kernel():
    """Against the Stein kernel by autograd; and it is near zero for draws of the target, not for others."""
    x = torch.randn(5, 3, dtype=F, generator=torch.Generator().manual_seed(0))
    grad, total = -x, 0.0
    for i in range(5):
        for j in range(5):
            a, b = x[i].clone().requires_grad_(), x[j].clone().requires_grad_()
            k = (1 + (a - b).square().sum()).rsqrt()
            (to_a,) = torch.autograd.grad(k, a, create_graph=True)
            (to_b,) = torch.autograd.grad(k, b, create_graph=True)
            trace = sum(torch.autograd.grad(to_a[d], b, retain_graph=True)[0][d] for d in range(3))
            total += float((k * grad[i] @ grad[j] + grad[i] @ to_b + grad[j] @ to_a + trace).detach())
    assert discrepancy(x, grad) == pytest.approx(total / 25, abs=1e-10)
    draws = torch.randn(500, 2, dtype=F, generator=torch.Generator().manual_seed(1))
    assert discrepancy(draws, -draws) < 0.02 < discrepancy(draws + 0.5, -draws - 0.5)
