"""Autoencoders that are told a class, or sum it out; and scores of what latents mean."""

import pytest
import torch

from inference import svi
from inference.base import fresh, joint
from inference.svi.objective import Objective, Survey
from ppmodels.autoencoders.conditional_vae import ConditionalVAE
from ppmodels.autoencoders.disentanglement import beta_vae_score, mutual_information_gap
from ppmodels.autoencoders.semi_supervised_vae import SemiSupervisedVAE
from ppmodels.autoencoders.traversal import continuity, incompleteness, interpolate, traverse
from ppmodels.autoencoders.vae import VariationalAutoencoder
from ppmodels.base import Data

pytestmark = pytest.mark.usefixtures("double_precision")


def classes(rows=300, dim=6):
    """Rows about three centres, with a style of two numbers in common."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(rows) % 3
    centres, style = torch.randn(3, dim, generator=generator), torch.randn(2, dim, generator=generator)
    z = torch.randn(rows, 2, generator=generator)
    return 1.2 * centres[y] + 0.7 * z @ style + 0.2 * torch.randn(rows, dim, generator=generator), y


def test_a_conditional_code_tells_style_and_not_class():
    x, y = classes()
    model = ConditionalVAE(noise=0.3, hidden=32)
    fit = svi.fit(model, Data.of(model, x=x, y=y), num_steps=800, lr=0.01, num_samples=2)
    codes = fit.model.encode(x, y)
    between = torch.stack([codes[y == k].mean(0) for k in range(3)]).var(0).sum()
    assert float(between) < 0.05 * float(codes.var(0).sum())
    changed = fit.model.decode(codes, (y + 1) % 3)
    centres = torch.stack([x[y == k].mean(0) for k in range(3)])
    nearest = torch.cdist(changed, centres).argmin(1)
    assert float((nearest == (y + 1) % 3).double().mean()) > 0.9


def bound(model, data, estimator=None):
    with fresh(model, (data,), seed=2) as own:
        survey = Survey.of(joint(own, (data,), {}), (data,), {})
        objective = Objective.of(own, (data,), {}, "hand", survey, 1, estimator)
        return objective, own


def test_the_class_is_summed_out_in_every_row_and_told_ones_are_taken():
    """The enumerated bound equals the sum written out, row by row and class by class."""
    x, y = classes(12)
    label = torch.where(torch.arange(12) < 6, y, -1)
    model = SemiSupervisedVAE(weight=3.0)
    data = Data.of(model, x=x, label=label)
    objective, own = bound(model, data)
    assert type(objective.estimator).__name__ == "TraceEnum_ELBO"

    seen = []
    for seed in range(300):
        with fresh(None, seed=seed), torch.no_grad():
            seen.append(-objective.loss(None))
    logits = own.networks["classifier"](x).detach()
    q, total = logits.log_softmax(-1), torch.zeros(())
    for k in range(3):
        told = torch.full((12,), k)
        posterior = own.networks["encoder"](_beside(x, told))
        z = posterior.rsample((4000,)).detach()
        value = own.decoder(_beside(z, told)).log_prob(x).mean(0) - _divergence(posterior)
        known = (label == told).double()
        free = q[:, k].exp() * (value - torch.log(torch.tensor(3.0)) - q[:, k])
        total = total + torch.where(label >= 0, known * (value + 3.0 * q[:, k]), free).sum().detach()
    seen = torch.stack(seen)
    assert abs(float(seen.mean() - total)) < 5 * float(seen.std()) / 300**0.5 + 0.05


def _beside(values, label):
    told = torch.nn.functional.one_hot(label, 3).to(values)
    return torch.cat([values, told.expand(*values.shape[:-1], 3)], -1)


def _divergence(q):
    prior = torch.distributions.Normal(torch.zeros(2), 1.0)
    return torch.distributions.kl_divergence(q.base_dist, prior).sum(-1)


def test_few_labels_and_many_rows_tell_the_classes():
    x, y = classes()
    label = torch.where(torch.arange(300) < 9, y, -1)
    model = SemiSupervisedVAE(noise=0.3, hidden=32)
    fit = svi.fit(model, Data.of(model, x=x, label=label), num_steps=250, lr=0.02, num_samples=2)
    assert float((fit.model.classify(x).argmax(1) == y)[9:].double().mean()) > 0.95
    assert fit.draws["y"].shape == (1, 2, 300)
    assert torch.equal(fit.draws["y"][0, 0, :9].long(), y[:9])


def test_wrong_classes_are_one_clear_line():
    def refused(cls, message, **values):
        with pytest.raises(ValueError, match=message) as caught:
            svi.fit(cls(), Data.of(cls(), x=torch.randn(6, 6), **values), num_steps=2, num_samples=2)
        assert "\n" not in str(caught.value)

    refused(ConditionalVAE, "the class of row 5 is 3; classes are 0 to 2$", y=torch.tensor([0, 1, 2, 0, 1, 3]))
    refused(ConditionalVAE, "class 1 has no row; number the classes", y=torch.tensor([0, 0, 2, 0, 2, 0]))
    refused(SemiSupervisedVAE, "classes are 0 to 2, or -1 for none", label=torch.tensor([0, 1, 2, 0, 1, -2]))
    refused(SemiSupervisedVAE, "class 2 has no row", label=torch.tensor([0, 1, -1, -1, -1, -1]))
    for cls in (ConditionalVAE, SemiSupervisedVAE):
        with pytest.raises(ValueError, match="mlp"):
            cls(network="convolutional")


def test_scores_tell_separate_causes_from_mixed_ones():
    factors = torch.randint(0, 4, (4000, 2))
    apart = factors + 0.05 * torch.randn(4000, 2)
    mixed = apart @ torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
    assert mutual_information_gap(apart, factors) > 0.9
    assert mutual_information_gap(mixed, factors) < 0.1
    assert mutual_information_gap(torch.randn(4000, 2), factors) < 0.05
    shared = torch.arange(600) % 2
    pairs = {}
    for name, turn in (("apart", torch.eye(2)), ("mixed", torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5)):
        a, b = torch.randint(0, 4, (2, 600, 30, 2)).double()
        b = torch.where(torch.arange(2) == shared[:, None, None], a, b)
        pairs[name] = ((a - b) @ turn).abs().mean(1)
    assert beta_vae_score(pairs["apart"], shared) > 0.99
    assert beta_vae_score(pairs["mixed"], shared) < 0.7
    with pytest.raises(ValueError, match="at least two latents"):
        mutual_information_gap(apart[:, :1], factors)
    with pytest.raises(ValueError, match="the same in every row"):
        mutual_information_gap(apart, torch.zeros(4000, 1))


def test_walks_change_one_coordinate_and_stay_on_the_sphere():
    seen = traverse(lambda z: z, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([-1.0, 1.0]))
    assert seen.shape == (3, 2, 3)
    assert seen[1].tolist() == [[0.1, -1.0, 0.3], [0.1, 1.0, 0.3]]
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    walk = interpolate(lambda z: z, a, b, 5)
    torch.testing.assert_close(walk[[0, -1]], torch.stack([a, b]))
    torch.testing.assert_close(walk.norm(dim=1), torch.full((5,), 2.0))
    torch.testing.assert_close(interpolate(lambda z: z, a, 3 * a, 3)[1], 2 * a)
    nearly_opposite = -3 * a + 0.01 * b
    lengths = interpolate(lambda z: z, a, nearly_opposite, 9).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.linspace(float(a.norm()), float(nearly_opposite.norm()), 9).to(lengths))


def test_holes_and_cliffs_are_measured():
    x = torch.randn(400, 2) @ torch.randn(2, 6)
    model = VariationalAutoencoder(noise=0.5)
    fit = svi.fit(model, Data.of(model, x=x), num_steps=800, lr=0.02, num_samples=2)
    codes = fit.model.encode(x)
    smooth = continuity(fit.model.decode, codes)
    assert smooth < 0.15 < 0.5 < continuity(lambda z: (40 * z).sin(), codes)
    filled = incompleteness(fit.model, x)
    with torch.no_grad():
        fit.model.encoder.network[-1].bias[:2] += 3  # all rows to one side
    assert filled < 0.5 < incompleteness(fit.model, x)
