"""Pathfinder: its algebra against dense matrices, its draws against known posteriors, its warning."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inference import pathfinder
from inference.density import Batched
from inference.optimum.normals import Normals, from_pairs
from inference.optimum.paths import approximate
from tests.inference.posteriors import NAMES, posterior

F = torch.float64


def pairs(paths, memory, dim, seed=0):
    """Steps and gradient changes of a random quadratic, (P, M, D), a point and a gradient, (P, D)."""
    generator = torch.Generator().manual_seed(seed)
    s, x, grad = (torch.randn(paths, n, dim, generator=generator, dtype=F) for n in (memory, 1, 1))
    scale = torch.rand(paths, dim, generator=generator, dtype=F) + 0.5
    weight = torch.linspace(0.5, 3.0, dim, dtype=F)
    y = s * weight + 0.3 * s.sum(-1, keepdim=True)
    return x[:, 0], grad[:, 0], scale, s, y


def dense(scale, s, y):
    h = torch.diag(scale)
    for a, b in zip(s, y, strict=True):
        if a.abs().sum() > 0:
            left = torch.eye(len(a), dtype=F) - torch.outer(a, b) / (a @ b)
            h = left @ h @ left.T + torch.outer(a, a) / (a @ b)
    return h


@pytest.mark.parametrize(("memory", "dim"), [(2, 9), (4, 5), (6, 3), (1, 1)])
def test_low_rank_gaussian_equals_the_dense_one(memory, dim):
    x, grad, scale, s, y = pairs(3, memory, dim)
    s[1, 0] = y[1, 0] = 0.0  # an empty slot
    normals, good = from_pairs(x, grad, scale, s, y)
    assert bool(good.all())
    cov = torch.stack([dense(*each) for each in zip(scale, s, y, strict=True)])
    loc = x + (cov @ grad[..., None])[..., 0]
    assert torch.allclose(normals.loc, loc, atol=1e-10)
    assert torch.allclose(normals.covariance(), cov, atol=1e-10)
    points = x[:, None] + torch.linspace(-2, 2, 7, dtype=F)[:, None] * scale[:, None]
    truth = torch.stack([dist.MultivariateNormal(m, c).log_prob(p) for m, c, p in zip(loc, cov, points, strict=True)])
    assert torch.allclose(normals.log_prob(points), truth, atol=1e-9)


def test_entropy_term_is_minus_log_q_of_the_draw():
    normals, _ = from_pairs(*pairs(2, 3, 6))
    u = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1), dtype=F)
    assert torch.allclose(-normals.log_prob(normals.transform(u)), normals.entropy_at(u), atol=1e-10)


class NothingLarge(TorchDispatchMode):
    """Note the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return out


def test_two_thousand_dimensions_without_a_square_matrix():
    x, grad, scale, s, y = pairs(1, 6, 2000)
    with NothingLarge() as mode:
        normals, good = from_pairs(x, grad, scale, s, y)
        draws = normals.transform(torch.randn(1, 30, 2000, dtype=F))
        log_q = normals.log_prob(draws)
    assert bool(good.all())
    assert bool(log_q.isfinite().all())
    assert mode.largest <= 30 * 2000


def test_large_dimension_end_to_end():
    scale = torch.full((2000,), 0.7, dtype=F)
    scale[:3] = 5.0

    def evaluate(x):
        return -0.5 * (x / scale).square().sum(-1), -x / scale**2

    start = 4 * torch.rand(4, 2000, generator=torch.Generator().manual_seed(0), dtype=F) - 2
    batched = Batched(4, "eager", "by hand", evaluate)
    found = approximate(batched, start, torch.Generator().manual_seed(1), num_draws=20)
    truth = float(scale.log().sum() + 1000 * math.log(2 * math.pi))  # log of the integral: the highest ELBO
    assert found.draws.shape == (4, 20, 2000)
    assert bool((found.elbo < truth + 10).all())
    assert bool((found.elbo > truth - 10).all())


def gaussian(loc, cov):
    pyro.sample("x", dist.MultivariateNormal(loc, cov))


def test_gaussian():
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(5, 5, generator=generator, dtype=F) * torch.logspace(-1, 1, 5, dtype=F)[:, None]
    cov, loc = root @ root.T, torch.linspace(-1, 1, 5, dtype=F)
    fit = pathfinder.fit(gaussian, loc, cov, num_samples=4000)
    white = (fit.draws["x"][0] - loc) @ torch.linalg.inv(torch.linalg.cholesky(cov)).T
    assert fit.info["khat"] < 0.5
    assert fit.info["converged"]
    assert torch.allclose(white.mean(0), torch.zeros(5, dtype=F), atol=0.08)
    assert torch.allclose(torch.cov(white.T), torch.eye(5, dtype=F), atol=0.12)
    assert max(fit.info["elbo"]) == pytest.approx(0.0, abs=0.3)


def two_hills(share):
    x = pyro.sample("x", dist.Normal(0.0, 1.0).mask(False))
    each = dist.Normal(torch.tensor([-1.2, 1.2]), 0.1).log_prob(x)
    pyro.factor("hills", (each + torch.stack([share, 1 - share]).log()).logsumexp(-1))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_two_modes_get_their_masses_however_many_paths_went_to_each(share):
    fit = pathfinder.fit(two_hills, torch.tensor(share, dtype=F), num_samples=4000, seed=1)
    left = float((fit.draws["x"] < 0).double().mean())
    ends = [restart["log_density"] for restart in fit.info["restarts"]]
    assert len({round(end, 3) for end in ends}) == (1 if share == 0.5 else 2)
    assert left == pytest.approx(share, abs=0.03)


def test_heavy_tails_are_not_trusted():
    program = lambda scale: pyro.sample("x", dist.StudentT(1.0, torch.zeros(3), scale).to_event(1))  # noqa: E731
    fit = pathfinder.fit(program, torch.tensor(1.0, dtype=F))
    assert fit.info["khat"] > 0.7
    assert not fit.info["converged"]
    assert "mcmc" in fit.info["message"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_funnel_is_not_trusted(seed):
    """k-hat alone would pass some of these: no path covers the wide end, so no draw can report it."""

    def funnel(scale):
        v = pyro.sample("v", dist.Normal(0.0, scale))
        pyro.sample("x", dist.Normal(torch.zeros(9), (0.5 * v).exp()).to_event(1))

    fit = pathfinder.fit(funnel, torch.tensor(3.0, dtype=F), seed=seed)
    assert not fit.info["converged"]
    assert "mcmc" in fit.info["message"]


def test_shapes_stats_seeds():
    one, two = (pathfinder.fit(two_hills, torch.tensor(0.4, dtype=F), num_samples=300, seed=9) for _ in range(2))
    assert one.draws["x"].shape == (1, 300)
    assert one.stats["lp"].shape == one.stats["path"].shape == (1, 300)
    assert torch.equal(one.draws["x"], two.draws["x"])
    assert len(one.info["elbo"]) == len(one.info["restarts"]) == 16
    json.dumps(one.info)


def test_systematic_counts_are_the_weights():
    weights = torch.tensor([0.1, 0.0, 0.55, 0.05, 0.3], dtype=F)
    chosen = pathfinder.systematic(weights, 1000, torch.Generator().manual_seed(0))
    counts = torch.bincount(chosen, minlength=5).double()
    assert bool(((counts - 1000 * weights).abs() <= 1).all())
    assert not bool((chosen.diff() >= 0).all())


def test_paths_together_are_paths_alone():
    scale = torch.tensor([0.2, 1.0, 5.0], dtype=F)

    def evaluate(x):
        return -0.5 * (x / scale).square().sum(-1) - x.pow(4).sum(-1), -x / scale**2 - 4 * x.pow(3)

    def run(start):
        narrow, wide = (Batched(size, "eager", "by hand", evaluate) for size in (len(start), 4096))
        generator = torch.Generator().manual_seed(1)
        return approximate(narrow, start, generator, wide=wide, num_elbo_draws=5000)

    start = 4 * torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=F) - 2
    together = run(start)
    for row in range(3):
        alone = run(start[row : row + 1])
        assert torch.allclose(alone.ascent.x[0], together.ascent.x[row], atol=1e-8)
        assert float(alone.elbo[0]) == pytest.approx(float(together.elbo[row]), abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_reference_posteriors_where_it_says_so(name):
    program, data, reference = posterior(name)
    fit = pathfinder.fit(program, data, num_samples=2000)
    if fit.info["khat"] > 0.7:
        assert name in ("eight_schools", "gp_regr")
        return
    for site, truth in reference.items():
        draws = fit.draws[site][0].reshape(2000, -1)
        mean, sd = (torch.tensor(truth[key], dtype=F).reshape(-1) for key in ("mean", "sd"))
        assert bool(((draws.mean(0) - mean).abs() / sd < 0.15).all()), site
        assert bool(((draws.std(0) / sd).log().abs() < 0.12).all()), site


def test_normals_index():
    normals, _ = from_pairs(*pairs(3, 2, 4))
    one = normals[1]
    assert isinstance(one, Normals)
    assert torch.equal(one.loc, normals.loc[1])
