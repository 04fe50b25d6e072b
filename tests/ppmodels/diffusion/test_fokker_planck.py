import math

import pytest
import torch

from ppmodels.diffusion.fokker_planck import fokker_planck, heat, heat_kernel
from ppmodels.diffusion.ornstein_uhlenbeck import OrnsteinUhlenbeck


def gauss(x, variance, mean=0.0):
    return (-((x - mean) ** 2) / (2 * variance)).exp() / math.sqrt(2 * math.pi * variance)


@pytest.mark.parametrize("mode", [1, 3, 10])
def test_fourier_modes_decay(mode):
    length, diffusion, t = 3.0, 0.2, 0.7
    x = torch.arange(64, dtype=torch.float64) / 64 * length
    k = 2 * math.pi * mode / length
    told = heat(1 + (k * x).cos(), t, diffusion, length)
    torch.testing.assert_close(told, 1 + math.exp(-diffusion * k**2 * t) * (k * x).cos(), rtol=0, atol=1e-10)


def test_heat_turns_a_gaussian_into_a_wider_one_and_keeps_mass():
    x = torch.linspace(-10, 10, 401, dtype=torch.float64)[:-1]
    told = heat(gauss(x, 0.5), 2.0, 0.3, 20.0)
    torch.testing.assert_close(told, gauss(x, 0.5 + 2 * 0.3 * 2.0), rtol=0, atol=1e-10)
    assert float(told.sum()) * 0.05 == pytest.approx(1, abs=1e-10)


def test_heat_kernel_is_normalised_and_spreads_as_2dt():
    x = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    kernel = heat_kernel(x, 3.0, 0.7)
    assert float(torch.trapezoid(kernel, x)) == pytest.approx(1, abs=1e-10)
    assert float(torch.trapezoid(kernel * x**2, x)) == pytest.approx(2 * 0.7 * 3, abs=1e-8)


def test_fokker_planck_without_drift_is_the_heat_equation():
    x = torch.linspace(-8, 8, 401, dtype=torch.float64)
    told = fokker_planck(gauss(x, 0.5), x, 1.0, torch.zeros_like, lambda v: torch.full_like(v, 0.4))
    torch.testing.assert_close(told, gauss(x, 0.5 + 0.8), rtol=0, atol=1e-4)


def test_ornstein_uhlenbeck_solution_is_gaussian_with_the_known_moments():
    process = OrnsteinUhlenbeck(0.8, 1.1)
    x = torch.linspace(-6, 6, 601, dtype=torch.float64)
    told = fokker_planck(gauss(x, 0.1, 2.0), x, 0.9, process.drift, process.diffusion)
    mean = float(process.mean(torch.tensor(2.0), 0.9))
    variance = process.variance(0.9) + 0.1 * math.exp(-2 * 0.8 * 0.9)
    torch.testing.assert_close(told, gauss(x, variance, mean), rtol=0, atol=1e-3)
    assert float(told.sum()) == pytest.approx(float(gauss(x, 0.1, 2.0).sum()), abs=1e-8)
    assert float(told.min()) > -1e-12


def test_stationary_density_stays():
    process = OrnsteinUhlenbeck(1.5, 0.9)
    x = torch.linspace(-4, 4, 201, dtype=torch.float64)
    still = gauss(x, process.stationary_variance)
    torch.testing.assert_close(
        fokker_planck(still, x, 5.0, process.drift, process.diffusion), still, rtol=0, atol=1e-10
    )


def test_diffusion_that_varies_keeps_its_own_stationary_density():
    """With B(x) = 1 + x^2 / 2 and A = 0, B p is constant where nothing flows."""
    x = torch.linspace(-3, 3, 241, dtype=torch.float64)
    told = fokker_planck(torch.ones_like(x), x, 60.0, torch.zeros_like, lambda v: 1 + v**2 / 2)
    flat = told * (1 + x**2 / 2)
    assert float((flat / flat.mean() - 1).abs().max()) < 5e-3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: fokker_planck(x[:5], x, 1.0, torch.zeros_like, torch.ones_like), "one shape"),
        (lambda x: fokker_planck(x, x**3, 1.0, torch.zeros_like, torch.ones_like), "evenly rising"),
        (lambda x: fokker_planck(x, x, 1.0, torch.zeros_like, torch.zeros_like), "diffusion must be positive"),
        (lambda x: heat_kernel(x, 0.0, 1.0), "t must be positive"),
    ],
)
def test_bad_input_gets_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says):
        call(torch.linspace(0, 1, 11, dtype=torch.float64))
