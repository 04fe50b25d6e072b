import math

import pytest
import torch

from inference import laplace, mcmc, mode
from ppmodels.base import Data
from ppmodels.population._nonlinearity import Direction
from ppmodels.population.lnp import LinearNonlinearPoisson

K = torch.tensor([0.8, -0.5, 0.3], dtype=torch.float64)


def simulated(rows, theta, **fields):
    model = LinearNonlinearPoisson(3, 1.0, rate=1.0, **fields)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 1000, 3, generator=generator, dtype=torch.float64)
    counts = torch.poisson(model.mean(theta, x), generator=generator)
    return model, Data(rows, {"stimulus": x, "seen": torch.ones(rows, 1000)}, {"counts": counts})


@pytest.mark.parametrize(
    ("kind", "extra"),
    [("exp", {}), ("softplus", {}), ("threshold-linear", {"floor": 0.5}), ("sigmoid", {"peak": 3.0})],
)
def test_what_made_the_counts_comes_back_within_two_percent(kind, extra):
    theta = {
        "weight": 2 * K,
        "bias": torch.tensor(0.6).double(),
        **{n: torch.tensor(v).double() for n, v in extra.items()},
    }
    model, data = simulated(100, theta, nonlinearity=kind, scale=10.0)
    fit = mode.fit(model, data, num_restarts=1)
    assert fit.info["converged"], fit.info["message"]  # at a threshold too, where the kink of a silent bin binds
    for name, value in theta.items():
        torch.testing.assert_close(fit.draws[name][0, 0], value, rtol=0.02, atol=0)


def test_the_threshold_s_slope_and_place_come_back():
    """f = max(a (x - b), 0) + c of one stimulus: a = k, b = -bias / k."""
    model = LinearNonlinearPoisson(1, 1.0, "threshold-linear", rate=1.0, scale=10.0)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(60, 1000, 1, generator=generator, dtype=torch.float64)
    mean = (3.0 * (x[..., 0] - 0.5)).clamp(min=0) + 0.4
    data = Data(60, {"stimulus": x, "seen": torch.ones(60, 1000)}, {"counts": torch.poisson(mean, generator=generator)})
    draws = mode.fit(model, data, num_restarts=1).draws
    k, bias, c = (float(draws[name]) for name in ("weight", "bias", "floor"))
    assert (k, -bias / k, c) == (
        pytest.approx(3.0, rel=0.02),
        pytest.approx(0.5, rel=0.02),
        pytest.approx(0.4, rel=0.02),
    )


def test_a_learned_nonlinearity_follows_one_that_is_no_exponential():
    _, data = simulated(40, {"weight": K / K.norm()} | {"bias": torch.tensor(0.0)}, nonlinearity="exp")
    x = data.given["stimulus"]
    along = x @ (K / K.norm())
    mean = 0.2 + 2 / (1 + (-3 * along).exp())
    counts = torch.poisson(mean, generator=torch.Generator().manual_seed(2))
    learned = LinearNonlinearPoisson(3, 1.0, "learned", bumps=9, rate=1.0)
    fit = mode.fit(learned, Data(40, data.given, {"counts": counts}), num_restarts=1)
    assert fit.info["converged"], fit.info["message"]
    theta = {name: value[0, 0] for name, value in fit.draws.items()}
    # The bumps and their prior are symmetric: k with f(u) and -k with f(-u) are one model, so k has no sign.
    assert float(torch.cosine_similarity(theta["weight"], K, 0).abs()) > 0.999
    inside = along.abs() < 2
    error = (model_mean(learned, theta, x) / mean).log()[inside]
    assert float(error.abs().mean()) < 0.05


def model_mean(model, theta, x):
    return model.mean(theta, x)


def test_a_direction_is_uniform_and_its_density_adds_up_to_one():
    axis = torch.linspace(-2, 2, 801, dtype=torch.float64)
    law, cell = Direction(axis, 2), float(axis[1] - axis[0]) ** 2
    grid = torch.cartesian_prod(axis + 1e-9, axis)
    assert float(law.log_prob(grid).exp().sum()) * cell == pytest.approx(1.0, abs=1e-3)
    torch.manual_seed(0)
    drawn = Direction(axis, 3).sample((20_000,))
    assert float(drawn.mean(0).abs().max()) < 4 / (3 * 20_000) ** 0.5 * 1.02
    assert float(drawn.norm(dim=-1).log().std()) == pytest.approx(Direction.SPREAD, rel=0.03)


def test_the_posterior_covariance_of_three_weights_is_laplace_s():
    theta = {"weight": K, "bias": torch.tensor(-0.5).double()}
    model, data = simulated(3, theta, nonlinearity="exp")
    approximate = laplace.fit(model, data, num_samples=8000, seed=0).draws["weight"].flatten(0, 1)
    sampled = mcmc.fit(model, data, seed=1, num_chains=32, num_warmup=150, num_samples=250, compile=False)
    own = sampled.draws["weight"].flatten(0, 1)
    torch.testing.assert_close(own.std(0), approximate.std(0), rtol=0.05, atol=0)
    at = mode.fit(model, data).draws
    x = torch.cat([data.given["stimulus"].flatten(0, 1), torch.ones(3000, 1)], 1).double()
    z = (x @ torch.cat([at["weight"].flatten(), at["bias"].flatten()])).exp()
    inverse = ((x * z[:, None]).mT @ x + torch.eye(4).double()).inverse()
    torch.testing.assert_close(approximate.std(0), inverse.diagonal().sqrt()[:3], rtol=0.05, atol=0)


def test_missing_bins_do_not_count_and_fields_are_checked():
    model, data = simulated(2, {"weight": K, "bias": torch.tensor(0.0)}, nonlinearity="exp")
    counts, seen = data.observed["counts"].clone(), data.given["seen"].clone()
    counts[0, 5:50], seen[0, 5:50] = 99, 0
    other = Data(2, {**data.given, "seen": seen}, {"counts": counts})
    again = counts.clone()
    again[0, 5:50] = 7
    fits = [mode.fit(model, Data(2, other.given, {"counts": y}), num_restarts=1) for y in (counts, again)]
    assert torch.allclose(fits[0].draws["weight"], fits[1].draws["weight"])
    with pytest.raises(ValueError, match="nonlinearity is one of exp, softplus"):
        LinearNonlinearPoisson(nonlinearity="relu")
    assert math.isfinite(fits[0].info["log_density"])
