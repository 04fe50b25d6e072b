"""The Bayesian skip-gram against quadrature, and what its draws say that does not depend on a rotation."""

import pytest
import torch

from inference import mcmc, mode
from ppmodels.base import Data
from ppmodels.embedding.loss import softmax
from ppmodels.embedding.skip_gram import SkipGram


def test_the_posterior_of_two_words_is_that_of_quadrature():
    """In one dimension: p(0 | i) = sigmoid(v_i d), with v_i and d = u_0 - u_1 normal."""
    centre = torch.tensor([0] * 10 + [1] * 6)
    context = torch.tensor([0] * 8 + [1] * 2 + [0] * 1 + [1] * 5)
    model = SkipGram(words=2, dim=1)
    data = Data.of(model, centre=centre, context=context)
    fit = mcmc.fit(model, data, seed=0, num_chains=64, num_samples=150, compile=False)
    draws = model.predictive(fit.draws["v"], fit.draws["u"])[..., 0]  # p(0 | i), (64, 150, 2)
    grid = torch.linspace(-6, 6, 601, dtype=torch.float64)
    d = grid * 2**0.5
    p = torch.sigmoid(grid[:, None] * d)  # (v, d)
    prior = (-grid.square() / 2).exp()
    each = [(prior[:, None] * p**zero * (1 - p) ** one) for zero, one in ((8, 2), (1, 5))]
    weight = each[0].sum(0) * each[1].sum(0) * prior
    truth = torch.stack([
        ((each[0] * p).sum(0) * each[1].sum(0) * prior).sum(),
        ((each[1] * p).sum(0) * each[0].sum(0) * prior).sum(),
    ]) / weight.sum()  # fmt: skip
    by_chain = draws.mean(1)  # chains are independent
    error = by_chain.std(0) / 8
    assert error.max() < 0.01
    assert ((by_chain.mean(0) - truth).abs() < 4 * error).all()


def test_the_mode_under_a_wide_prior_predicts_the_frequencies():
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(5, 40, (4, 4), generator=generator)
    centre, context = (t.repeat_interleave(counts.flatten()) for t in torch.cartesian_prod(*[torch.arange(4)] * 2).T)
    model = SkipGram(words=4, dim=4, scale=30.0)
    fit = mode.fit(model, Data.of(model, centre=centre, context=context), seed=1)
    v, u = (fit.draws[site][0, 0] for site in ("v", "u"))
    share = counts / counts.sum(1, keepdim=True)
    assert torch.allclose(model.predictive(v, u).double(), share.double(), atol=0.01)
    entropy = -(counts * share.log()).sum() / counts.sum()
    assert softmax(v[centre], context, u).mean().item() == pytest.approx(entropy.item(), abs=1e-3)


def test_cosines_do_not_see_a_rotation():
    v = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    model = SkipGram(words=5)
    assert torch.allclose(model.cosines(v), model.cosines(v @ turn), atol=1e-6)
    assert model.cosines(v).shape == (3, 5, 5)


def test_bad_fields_are_refused():
    with pytest.raises(ValueError, match="words must be at least 2"):
        SkipGram(words=1)
    with pytest.raises(ValueError, match="scale must be positive"):
        SkipGram(scale=0.0)
