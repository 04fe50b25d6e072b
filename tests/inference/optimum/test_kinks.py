"""The top of log densities with kinks: where it is known, what is left, and what a fit says of it."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mode
from inference.optimum import kinks

F = torch.float64


def evaluate(log_prob):
    def both(x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = log_prob(x)
            (grad,) = torch.autograd.grad(value, x)
        return value.detach(), grad

    return both


def test_the_top_is_on_the_kinks_that_bind():
    """-|x_1| - 2 |x_2 - 1| - |x - c|^2 / 2: the first two bind at 0 and 1, the third coordinate is smooth."""
    centre = torch.tensor([0.7, 2.5, -1.3], dtype=F)
    climbed = kinks.climb(
        evaluate(lambda x: -x[0].abs() - 2 * (x[1] - 1).abs() - 0.5 * (x - centre).square().sum()),
        torch.tensor([3.0, -2.0, 4.0], dtype=F), torch.eye(3, dtype=F), 1e-8,
    )  # fmt: skip
    assert climbed.gain <= 1e-8
    torch.testing.assert_close(climbed.x, torch.tensor([0.0, 1.0, -1.3], dtype=F), rtol=0, atol=1e-5)
    assert climbed.value == pytest.approx(-0.5 * (0.7**2 + 1.5**2), abs=1e-8)
    assert float(climbed.slope.norm()) < 2e-4


def test_a_smooth_top_is_found_by_newton_s_step():
    root = torch.tensor([[2.0, 0.0], [1.0, 3.0]], dtype=F)
    climbed = kinks.climb(
        evaluate(lambda x: -0.5 * (root.mT @ (x - 1)).square().sum()), torch.zeros(2, dtype=F), root, 1e-12
    )
    torch.testing.assert_close(climbed.x, torch.ones(2, dtype=F))


def test_what_is_not_finite_is_no_answer():
    assert kinks.climb(evaluate(lambda x: -x.log().sum()), torch.ones(1, dtype=F), torch.eye(1, dtype=F), 1e-9) is None


def test_the_mode_under_laplace_noise_is_an_observation(monkeypatch):
    y = torch.tensor([-2.0, 0.3, 0.5, 1.4, 9.0], dtype=F)

    def program(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        pyro.sample("y", dist.Laplace(loc, 1.0).expand([5]).to_event(1), obs=y)

    fit = mode.fit(program, y)
    assert fit.info["converged"]
    assert float(fit.draws["loc"]) == pytest.approx(0.5, abs=1e-5)
    assert fit.info["decrement"] <= 1e-8
    monkeypatch.setattr(kinks, "TRIES", 1)
    fit = mode.fit(program, y)
    assert not fit.info["converged"]
    assert "no step gains more" in fit.info["message"]
    assert "raise num_steps" not in fit.info["message"]
