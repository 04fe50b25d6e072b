"""Autoregressive sequences: a law that sums to one, draws that follow it, learning, a Bayesian last layer."""

import math

import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta
from torch import nn

from inference import laplace, svi
from inference.base import Unsupported
from ppmodels.base import Data
from ppmodels.nn.parameter_groups import parameter_options
from ppmodels.sequence._autoregressive import Autoregressive
from ppmodels.sequence._readout import Readout
from ppmodels.sequence.autoregressive import AutoregressiveSequence

pytestmark = pytest.mark.usefixtures("double_precision")
KINDS = ("s4d", "s4", "transformer")


def law_of(model, scale=2.0, noise=0.5):
    readout = Readout(model.emission, scale * torch.randn(model.dim, model.width), torch.randn(model.dim), noise)
    return Autoregressive(model.body, readout, model.length)


def every_sequence(tokens, length):
    return torch.cartesian_prod(*[torch.arange(tokens)] * length)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_probabilities_of_all_sequences_add_up_to_one(kind):
    law = law_of(AutoregressiveSequence(dim=3, length=4, kind=kind))
    total = law.log_prob(every_sequence(3, 4)).logsumexp(0)
    assert float(total) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_draws_follow_the_law(kind):
    law, number = law_of(AutoregressiveSequence(dim=2, length=3, kind=kind)), 4000
    drawn = law.sample((number,))
    assert drawn.shape == (number, 3)
    counted = (drawn @ torch.tensor([4, 2, 1])).bincount(minlength=8) / number
    wanted = law.log_prob(every_sequence(2, 3)).exp()
    assert ((counted - wanted).abs() < 4 * (wanted * (1 - wanted) / number).sqrt() + 1e-9).all()


@pytest.mark.parametrize("emission", ["categorical", "gaussian", "poisson"])
@torch.no_grad()
def test_a_cache_changes_no_draw(emission):
    """A network that cannot decode is read anew for each value: same draws, same continuation."""

    class Plain(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    for kind in KINDS:
        law = law_of(AutoregressiveSequence(dim=3, length=12, kind=kind, emission=emission), scale=0.5)
        plain = Autoregressive(Plain(law.network), law.readout, 12)
        runs = []
        for each in (law, plain):
            torch.manual_seed(1)
            drawn = each.sample((5,))
            runs.append(torch.cat([drawn, each.after(drawn, 4, 1.0, None, None)], 1))
        torch.testing.assert_close(*runs, atol=1e-9, rtol=0)


@torch.no_grad()
def test_the_density_is_the_sum_of_what_the_network_foretells():
    """By hand, from the features of the shifted sequence: numbers as they are, counts as log(1 + y)."""
    for emission, code in (("gaussian", lambda y: y), ("poisson", torch.log1p)):
        law = law_of(AutoregressiveSequence(dim=2, length=7, emission=emission), scale=0.5)
        y, readout = law.sample((3,)), law.readout
        shown = torch.cat([torch.zeros(3, 1, 2), code(y[:, :-1])], 1)
        f = law.network(shown) @ readout.weight.T + readout.bias
        own = dist.Normal(f, 0.5) if emission == "gaussian" else dist.Poisson(f.exp())
        torch.testing.assert_close(law.log_prob(y), own.log_prob(y).sum((1, 2)), atol=1e-12, rtol=0)


def chain(rows, length, keep=0.9):
    """A token that stays with probability `keep`, else becomes one of the two others; its entropy a step."""
    move = torch.full((3, 3), (1 - keep) / 2).fill_diagonal_(keep)
    y = [torch.randint(3, (rows,))]
    for _ in range(length - 1):
        y.append(torch.multinomial(move[y[-1]], 1)[:, 0])
    return torch.stack(y, 1), -float((move[0] * move[0].log()).sum())


def test_learns_a_markov_chain_and_knows_the_rest_by_laplace():
    """Point guide: the likelihood of new sequences gets to the entropy; then the last layer alone, and its draws."""
    y, entropy = chain(300, 16)
    model = AutoregressiveSequence(dim=3, length=16, kind="transformer", width=8, heads=1)
    options = {"groups": parameter_options(model.body, "network$$$", lr=0.02), "optimiser": torch.optim.AdamW}
    data = Data.of(model, y=y)
    fit = svi.fit(model, data, guide=AutoDelta, num_steps=200, num_samples=1, training=options, compile=False)
    learned = fit.model.fixed_at(fit.model.body)
    new = Data.of(model, y=chain(1000, 16)[0])

    posterior = laplace.fit(learned, data, num_samples=40, num_restarts=1)
    assert posterior.draws["weight"].shape == (1, 40, 3, 8)
    mean = {site: draws[0].mean(0) for site, draws in posterior.draws.items()}
    for theta in ({site: draws[0, 0] for site, draws in fit.draws.items()}, mean):
        law = Autoregressive(learned.body, Readout("categorical", theta["weight"], theta["bias"]), 16)
        each = -law.log_prob(new.observed["y"]).mean() / 16
        # The first token of sixteen is uniform: log 3 nats, not the entropy of a step.
        assert float(each) == pytest.approx((math.log(3) + 15 * entropy) / 16, abs=0.02)
    drawn = posterior.predict()["y"]
    assert drawn.shape == (1, 40, 300, 16)
    stays = (drawn[..., 1:] == drawn[..., :-1]).double().mean()
    assert float(stays) == pytest.approx(0.9, abs=0.02)

    likeliest = learned.generate(mean, 5, torch.tensor([[2, 2, 2]]), temperature=0.0)
    assert likeliest.tolist() == [[2] * 5]
    assert learned.generate(mean, 5, torch.tensor([[2, 2, 2]]), top_k=1).tolist() == [[2] * 5]
    assert learned.generate(mean, 5, torch.tensor([[1]]), top_p=0.5).tolist() == [[1] * 5]
    assert learned.generate(mean, 30).shape == (1, 30)


def test_a_network_of_ones_own_and_of_another_precision():
    class Shift(nn.Module):
        """Shows the last token as it is: features (B, T, 4)."""

        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(4, 4, dtype=torch.float32)

        def forward(self, x):
            return self.table(x)

    model = AutoregressiveSequence(dim=3, length=5, width=4, network=Shift())
    fit = svi.fit(model, Data.of(model, y=chain(20, 5)[0]), num_steps=20, num_samples=3)
    assert fit.model.body.table.weight.dtype == torch.float32
    assert fit.predict()["y"].shape == (1, 3, 20, 5)
    wrong = AutoregressiveSequence(dim=3, length=5, width=9, network=Shift())
    with pytest.raises(ValueError, match="say width=4"):
        svi.fit(wrong, Data.of(wrong, y=chain(20, 5)[0]), num_steps=20)


def test_one_clear_line_for_what_cannot_be():
    with pytest.raises(ValueError, match="no kind 'gru'"):
        AutoregressiveSequence(kind="gru")
    with pytest.raises(ValueError, match="no emission 'binomial'"):
        AutoregressiveSequence(emission="binomial")
    with pytest.raises(ValueError, match="heads of even width"):
        AutoregressiveSequence(kind="transformer", width=9)
    with pytest.raises(ValueError, match="length must be at least 1"):
        AutoregressiveSequence(length=0)
    with pytest.raises(ValueError, match="say network="):
        AutoregressiveSequence(fixed=True)
    model = AutoregressiveSequence(dim=2, length=3)
    for rows, message in (
        ([[0, 1, 2]], "y is 2 in row 0, time 2; it must be a whole number from 0 to 1"),
        ([[0, 1]], r"y must be \(rows, 3\); it is \(1, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            svi.fit(model, Data.of(model, y=rows))
    counts = AutoregressiveSequence(dim=1, length=2, emission="poisson")
    with pytest.raises(ValueError, match="y is -1 in row 0, time 1, column 0; it must be a count"):
        svi.fit(counts, Data.of(counts, y=[[[0.0], [-1.0]]]))
    with pytest.raises(ValueError, match="temperature, top_k and top_p are for tokens"):
        counts.generate({"weight": torch.zeros(1, 8), "bias": torch.zeros(1)}, 3, temperature=0.5)
    with pytest.raises(Unsupported, match="learn"):
        laplace.fit(model, Data.of(model, y=[[0, 1, 1]]))
