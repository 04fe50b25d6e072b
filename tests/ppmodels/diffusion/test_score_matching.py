import math

import pytest
import torch
from torch.distributions import Independent, Laplace, Normal, StudentT

from ppmodels.diffusion import score_matching as sm
from ppmodels.diffusion.langevin import ladder_loss, noise_ladder
from ppmodels.diffusion.mixture import NoisedMixture

S2, SIGMA2 = 1.5, 0.7
C = -S2 / (2 * SIGMA2 * (S2 + SIGMA2))


def random_score(seed, dim=1):
    """A smooth function nobody chose."""
    first, last = (
        torch.randn(a, b, generator=torch.Generator().manual_seed(seed)).double() for a, b in ((dim, 8), (8, dim))
    )
    return lambda x: torch.tanh(x @ first) @ last


def draws(count, seed=0, dim=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, dim, generator=generator, dtype=torch.float64) for _ in range(2))


def within(values, truth, errors=4.0):
    """Whether a Monte Carlo mean is the truth, to that many standard errors."""
    return abs(float(values.mean()) - truth) < errors * float(values.std()) / math.sqrt(len(values))


def test_the_constant():
    assert pytest.approx(-0.487013, abs=5e-7) == C
    x, z = draws(1_000_000)
    x, noise = S2**0.5 * x, SIGMA2**0.5 * z
    kernel = Normal(torch.tensor(0.0).double(), SIGMA2**0.5)
    told = sm.constant(lambda v: -v / (S2 + SIGMA2), x + noise, noise, kernel)
    assert within(told, C)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_explicit_is_denoising_plus_the_constant_whatever_the_model(seed):
    x, z = draws(1_000_000, seed)
    x, noise = S2**0.5 * x, SIGMA2**0.5 * z
    score, kernel = random_score(seed), Normal(torch.tensor(0.0).double(), SIGMA2**0.5)
    explicit = sm.explicit(score, x + noise, lambda v: -v / (S2 + SIGMA2))
    assert within(explicit - sm.denoising(score, x, noise, kernel), C)


@pytest.mark.parametrize(
    "kernel",
    [Normal(0.0, 0.8), Laplace(0.0, 0.6), StudentT(5.0, 0.0, 0.7)],
    ids=["normal", "laplace", "student"],
)
def test_cross_terms_are_equal_for_any_kernel(kernel):
    """E[psi' grad log p_sigma] = E[psi' grad log q]; p_sigma of a two-point law is known for every kernel."""
    torch.manual_seed(0)
    points = torch.tensor([-1.0, 1.5], dtype=torch.float64)
    x = points[torch.randint(2, (1_000_000, 1))]
    noise = kernel.sample((1_000_000, 1)).double()
    score = random_score(4)

    def truth(noisy):
        weights = kernel.log_prob(noisy - points).softmax(-1)
        return (weights * sm.noise_score(noisy - points, kernel)).sum(-1, keepdim=True)

    noisy = x + noise
    gap = score(noisy) * (truth(noisy) - sm.noise_score(noise, kernel))
    assert within(gap[:, 0], 0.0)
    assert float((score(noisy) * truth(noisy)).mean().abs()) > 0.01  # the two are not both nothing
    explicit, denoising = sm.explicit(score, noisy, truth), sm.denoising(score, x, noise, kernel)
    assert within(explicit - denoising - sm.constant(truth, noisy, noise, kernel), 0.0)


def test_gradients_in_theta_agree_and_vanish_at_the_shared_minimum():
    x, z = draws(1_000_000)
    x, noise = S2**0.5 * x, SIGMA2**0.5 * z
    kernel = Normal(torch.tensor(0.0).double(), SIGMA2**0.5)
    best = 1 / (S2 + SIGMA2)
    for slope in (0.2, best, 0.9):
        a = torch.tensor(slope, dtype=torch.float64, requires_grad=True)
        losses = (
            sm.explicit(lambda v, a=a: -a * v, x + noise, lambda v: -best * v).mean(),
            sm.denoising(lambda v, a=a: -a * v, x, noise, kernel).mean(),
        )
        gradients = [float(torch.autograd.grad(loss, a)[0]) for loss in losses]
        assert gradients[0] == pytest.approx((slope - best) * (S2 + SIGMA2), abs=0.01)
        assert gradients[1] == pytest.approx(gradients[0], abs=0.01)


def test_noise_units_are_the_general_loss_sample_by_sample():
    x, z = draws(1000, dim=3)
    kernel = Independent(Normal(torch.zeros(3).double(), 0.4), 1)
    general = sm.denoising(random_score(5, 3), x, 0.4 * z, kernel)
    torch.testing.assert_close(general, sm.denoising_gaussian(random_score(5, 3), x, z, 0.4), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [1.0, 0.1, 0.01])
def test_variance_of_the_two_targets(sigma):
    """Per sample the denoising target has variance d / sigma^2; the explicit one stays bounded."""
    x, z = draws(200_000, dim=2)
    denoising = (sm.noise_score(sigma * z, Normal(torch.tensor(0.0).double(), sigma)) ** 2).sum(-1)
    assert float(denoising.mean()) == pytest.approx(2 / sigma**2, rel=0.02)
    noisy = S2**0.5 * x + sigma * z
    explicit = ((noisy / (S2 + sigma**2)) ** 2).sum(-1)
    assert float(explicit.mean()) == pytest.approx(2 / (S2 + sigma**2), rel=0.02)
    assert float(explicit.mean()) < 2 / S2 + 0.05


def test_tweedie_is_the_posterior_mean(ring):
    """The optimal denoising autoencoder is x + sigma^2 score."""
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    told = sm.tweedie(x, ring.score(x, 1.0, 0.5), 0.5)
    weights = ring.log_label(x, 1.0, 0.5).exp()
    each = ring.loc + 0.0625 / (0.0625 + 0.25) * (x[:, None] - ring.loc)
    torch.testing.assert_close(told, (weights[..., None] * each).sum(1), rtol=0, atol=1e-10)


def test_a_trained_denoiser_is_tweedie():
    world = NoisedMixture.isotropic(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.3)
    torch.manual_seed(0)
    x = world.sample(60_000, torch.Generator().manual_seed(1))[0]
    features = torch.linspace(-3, 3, 25, dtype=torch.float64)

    def basis(v):
        return torch.cat([(-((v - features) ** 2) / 0.18).exp(), v, torch.ones_like(v)], -1)

    # The regression of x on its noisy self is the denoising loss, here with its exact minimiser.
    noisy = x + 0.5 * torch.randn_like(x)
    learned = torch.linalg.lstsq(basis(noisy), x).solution
    grid = torch.linspace(-1.8, 1.8, 60, dtype=torch.float64)[:, None]
    truth = sm.tweedie(grid, world.score(grid, 1.0, 0.5), 0.5)
    density = world.log_prob(grid, 1.0, 0.5).exp()
    error = ((basis(grid) @ learned - truth)[:, 0].square() * density).sum() / density.sum()
    assert float(error.sqrt()) < 1e-2


def test_optimum_on_finite_data_is_the_score_of_the_kernel_density():
    data, x = draws(20, dim=3)[0], draws(7, 1, dim=3)[0].requires_grad_()
    density = Normal(data, 0.6).log_prob(x[:, None]).sum(-1).logsumexp(-1)
    (gradient,) = torch.autograd.grad(density.sum(), x)
    torch.testing.assert_close(sm.kernel_density_score(x, data, 0.6), gradient, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ["implicit", "sliced", "sliced, reduced"])
def test_losses_without_the_truth_differ_by_half_the_fisher_information(kind):
    x = 1.3 * draws(200_000, 3, dim=2)[0]
    score = random_score(6, 2)
    explicit = sm.explicit(score, x, lambda v: -v / 1.3**2)
    if kind == "implicit":
        told = sm.implicit(score, x)
    else:
        signs = draws(200_000, 4, dim=2)[0].sign()
        told = sm.sliced(score, x, signs, reduced=kind.endswith("reduced"))
    assert within(explicit - told.detach(), 0.5 * 2 / 1.3**2)


def test_implicit_trace_is_the_jacobian_s():
    x, score = draws(5, dim=3)[0], random_score(7, 3)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda v: score(v[None])[0]))(x)
    trace = jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)
    truth = trace + 0.5 * score(x).square().sum(-1)
    torch.testing.assert_close(sm.implicit(score, x).detach(), truth, rtol=0, atol=1e-12)
    assert torch.equal(sm.implicit(lambda v: torch.ones_like(x), x), torch.full((5,), 1.5).double())


def test_every_level_of_the_ladder_has_a_loss_of_the_order_of_the_dimension(gaussian):
    world, generator = gaussian(1.0, dim=3), torch.Generator().manual_seed(0)
    x = world.sample(20_000, generator)[0]
    for sigma in noise_ladder(20.0, 0.01, 7).tolist():
        told = ladder_loss(lambda v, s: 0 * v, x, torch.tensor([sigma]), generator)
        assert float(told.mean()) == pytest.approx(1.5, rel=0.05)
        best = ladder_loss(lambda v, s: -v / (1 + s[:, None] ** 2), x, torch.tensor([sigma]), generator)
        assert float(best.mean()) == pytest.approx(1.5 / (1 + sigma**2), rel=0.05)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sm.denoising(lambda v: v, torch.zeros(3, 2), torch.zeros(3, 1), Normal(0.0, 1.0)),
        lambda: sm.explicit(lambda v: v[:, :1], torch.zeros(3, 2), lambda v: v),
        lambda: sm.noise_score(torch.zeros(3, 2), Independent(Normal(torch.zeros(3), 1.0), 1)),
        lambda: sm.sliced(lambda v: v, torch.zeros(3, 2), torch.zeros(3)),
    ],
)
def test_shapes_that_do_not_fit(call):
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        call()
