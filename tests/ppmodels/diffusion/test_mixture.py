import math
from itertools import pairwise

import pytest
import torch

from ppmodels.diffusion.mixture import NoisedMixture
from ppmodels.diffusion.schedule import linear


@pytest.fixture
def world(seeded):
    root = torch.randn(3, 2, 2, generator=seeded(3), dtype=torch.float64)
    loc = 2 * torch.randn(3, 2, generator=seeded(4), dtype=torch.float64)
    return NoisedMixture(
        torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), loc, root @ root.mT + 0.1 * torch.eye(2).double()
    )


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.0), (0.6, 0.8), (1.0, 5.0)])
def test_density_is_that_of_torch(world, alpha, sigma, seeded):
    x = torch.randn(7, 2, generator=seeded(), dtype=torch.float64)
    covariance = alpha**2 * world.covariance + sigma**2 * torch.eye(2).double()
    parts = torch.distributions.MultivariateNormal(alpha * world.loc, covariance)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(world.weights), parts)
    torch.testing.assert_close(world.log_prob(x, alpha, sigma), mixture.log_prob(x), rtol=0, atol=1e-10)


def test_score_and_origin_are_gradients_of_the_density(world, seeded):
    x = torch.randn(7, 2, generator=seeded(), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(world.log_prob(x, 0.6, 0.8).sum(), x)
    torch.testing.assert_close(world.score(x, 0.6, 0.8), gradient, rtol=0, atol=1e-10)
    torch.testing.assert_close(world.x0(x, 0.6, 0.8), (x + 0.64 * gradient) / 0.6, rtol=0, atol=1e-10)


def test_rows_may_have_levels_of_their_own(world, seeded):
    x = torch.randn(3, 2, generator=seeded(), dtype=torch.float64)
    schedule, t = linear(), torch.tensor([1, 400, 1000])
    together = world.network(schedule)(x, t)
    alone = torch.cat([world.network(schedule)(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_sample_has_the_moments(world, seeded):
    x, label = world.sample(200_000, seeded())
    torch.testing.assert_close(x.mean(0), world.weights @ world.loc, atol=0.02, rtol=0)
    torch.testing.assert_close(x[label == 1].T.cov(), world.covariance[1], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((torch.ones(2), torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2)), "sum to 1"),
        ((torch.ones(1), torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2)), "weights"),
        ((torch.ones(1), torch.zeros(1, 2), torch.eye(3).expand(1, 3, 3)), "covariance"),
    ],
)
def test_bad_mixtures_are_refused(parts, says):
    with pytest.raises(ValueError, match=says):
        NoisedMixture(*parts)


def test_points_of_another_dimension_are_refused(world):
    with pytest.raises(ValueError, match=r"x must be \(B, 2\)"):
        world.score(torch.zeros(4, 3).double())


def test_the_way_back_is_nearly_gaussian_when_a_step_is_small():
    """KL from q(x_s | x_t) of two clusters, on a grid, to the Gaussian of its moments: it vanishes faster than beta."""
    world = NoisedMixture.isotropic(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.5)
    x = torch.linspace(-6, 6, 12_001, dtype=torch.float64)
    prior, width = world.log_prob(x[:, None], 0.9, 0.19**0.5), 12 / 12_000

    def gap(beta):
        gaps = []
        for x_t in (-1.2, -0.3, 0.0, 0.7, 1.5):
            log_p = prior + torch.distributions.Normal((1 - beta) ** 0.5 * x, beta**0.5).log_prob(torch.tensor(x_t))
            log_p = log_p - (log_p.logsumexp(0) + math.log(width))
            p = log_p.exp() * width
            mean = (p * x).sum()
            fit = torch.distributions.Normal(mean, (p * (x - mean) ** 2).sum().sqrt())
            gaps.append(float((p * (log_p - fit.log_prob(x))).sum()))
        return sum(gaps) / len(gaps)

    found = [gap(beta) for beta in (0.2, 0.1, 0.05, 0.025)]
    assert found[0] < 0.05
    assert all(math.log2(coarse / fine) > 1 for coarse, fine in pairwise(found))
