"""What only the microcanonical sampler does: constant speed, exact work, and refusal of a single coordinate."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc
from inference.base import Unsupported
from inference.mcmc.mams import _turn, isokinetic


def test_a_turn_follows_its_differential_equation():
    generator = torch.Generator().manual_seed(0)
    v, force = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    v, time, freedom = v / v.norm(dim=1, keepdim=True), 0.7, 3
    turned, work = _turn(v, force, torch.full((6, 1), time, dtype=torch.float64))
    # dv/dt = (1 - v v^T) force / (dim - 1), d work/dt = v . force, in small midpoint steps
    steps, done = 4000, torch.zeros(6, dtype=torch.float64)
    for _ in range(steps):
        slope = (force - v * (v * force).sum(1, keepdim=True)) / freedom
        middle = v + 0.5 * time / steps * slope
        done = done + time / steps * (middle * force).sum(1)
        v = v + time / steps * (force - middle * (middle * force).sum(1, keepdim=True)) / freedom
    torch.testing.assert_close(turned, v, rtol=0, atol=1e-6)
    torch.testing.assert_close(work, done, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-200, 1e4])
def test_no_force_and_a_huge_force_are_finite(size):
    v = torch.tensor([[0.6, 0.8], [-1.0, 0.0]], dtype=torch.float64)
    force = size * torch.tensor([[1.0, 0.0], [1.0, 1e-3]], dtype=torch.float64)
    turned, work = _turn(v, force, torch.full((2, 1), 0.5, dtype=torch.float64))
    assert turned.isfinite().all()
    assert work.isfinite().all()
    torch.testing.assert_close(turned.norm(dim=1), torch.ones(2, dtype=torch.float64))
    if size < 1:
        torch.testing.assert_close(turned, v)


def test_particles_keep_unit_speed_and_a_flat_density_does_no_work():
    def flat(x):
        return torch.zeros(len(x), dtype=x.dtype), torch.zeros_like(x)

    x, v = torch.zeros(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    v = v / v.norm(dim=1, keepdim=True)
    factor, step = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), torch.full((5, 1), 0.3, dtype=torch.float64)
    moved, turned, _, work, _, _ = isokinetic(flat, x, v, torch.zeros_like(x), torch.zeros(5).double(), step, factor)
    torch.testing.assert_close(moved, 0.3 * factor * v)
    torch.testing.assert_close(turned, v)
    assert work.abs().max() < 1e-14


def test_a_single_coordinate_is_refused():
    def program():
        pyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(Unsupported, match="two coordinates"):
        mcmc.fit(program, kernel="mams", num_chains=4, num_warmup=5, num_samples=5, compile=False)


def test_step_size_means_what_it_means_to_hmc():
    """A standard normal of 30 coordinates takes steps of about the size that HMC takes."""

    def program():
        pyro.sample("x", dist.Normal(torch.zeros(30), 1.0).to_event(1))

    options = {"num_chains": 32, "num_warmup": 120, "num_samples": 5, "compile": False, "seed": 1}
    sizes = [mcmc.fit(program, kernel=kernel, **options).info["step_size"] for kernel in ("mams", "hmc")]
    assert math.log(sizes[0] / sizes[1]) == pytest.approx(0.0, abs=0.5)
