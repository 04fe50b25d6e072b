"""The continuous network is attention, falls in energy, and retrieves within its bound."""

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ppmodels.memory.dense import DenseMemory, Interaction
from ppmodels.memory.modern import (
    effective_patterns,
    energy,
    lse,
    retrieval_bound,
    retrieve,
    separation,
    update,
)
from ppmodels.nn.hopfield import HopfieldLayer, HopfieldLookup, HopfieldPooling
from tests.draws import normal


def test_identities_of_log_sum_exp():
    x, beta = normal(50), 0.7
    assert torch.allclose((beta * lse(x, beta)).exp(), (beta * x).exp().sum(), rtol=1e-12)
    assert torch.allclose((beta * (x - lse(x, beta))).exp(), (beta * x).softmax(-1), rtol=1e-12)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(lse(x, beta), x)
    assert torch.allclose(slope, (beta * x).softmax(-1), rtol=1e-12)
    huge = torch.tensor([1e4, -1e4, 1e4], dtype=torch.float64)
    assert lse(huge).item() == pytest.approx(1e4 + math.log(2), abs=1e-11)
    assert torch.allclose((huge - lse(huge)).exp(), huge.softmax(-1), rtol=1e-12)


def test_energy_lies_between_zero_and_twice_the_largest_square():
    x = normal(1000, 64)
    weights = torch.distributions.Dirichlet(torch.full((1000,), 0.02, dtype=torch.float64)).sample((500,))
    states = torch.cat([weights @ x, x])
    bound = 2 * x.square().sum(-1).max()
    e = energy(states, x)
    assert e.min() >= 0
    assert e.max() <= bound
    assert 150 < bound < 260


@pytest.mark.parametrize("beta", [0.05, 0.3, 1.0, 4.0])
def test_energy_falls_at_every_update(beta):
    x, state = normal(100, 16), normal(50, 16, seed=1)
    before = energy(state, x, beta)
    for _ in range(20):
        state = update(state, x, beta)
        after = energy(state, x, beta)
        assert (after <= before + 1e-12).all()
        before = after


def test_an_update_is_a_step_of_cccp():
    """State minus the gradient of E: what is left of |xi|^2 / 2 when the concave part is made linear."""
    x, state = normal(30, 8), normal(5, 8, seed=1).requires_grad_()
    (slope,) = torch.autograd.grad(energy(state, x, 0.8).sum(), state)
    assert torch.allclose(update(state, x, 0.8), state - slope, atol=1e-12)


def test_an_update_is_attention():
    query, key = normal(2, 7, 16), normal(40, 16, seed=1)
    truth = scaled_dot_product_attention(query, key.expand(2, -1, -1), key.expand(2, -1, -1))
    assert torch.allclose(update(query, key, beta=16**-0.5), truth, rtol=0, atol=1e-6)
    by_hand = (query @ key.mT / 4).softmax(-1) @ key
    assert torch.allclose(update(query, key, beta=0.25), by_hand, rtol=0, atol=1e-14)


@pytest.mark.parametrize("beta", [0.125, 0.25, 0.5, 1.0])
def test_retrieval_error_of_every_pattern_is_within_its_bound(beta):
    x = normal(1000, 64)
    error = (update(x, x, beta) - x).norm(dim=-1)
    assert (error <= retrieval_bound(x, beta) + 1e-12).all()
    naive = x @ x.mT
    own = naive.diagonal().clone()
    assert torch.allclose(separation(x), own - naive.fill_diagonal_(-math.inf).max(-1).values)


def test_half_masked_queries_find_their_pattern():
    x = normal(1000, 64)
    query = x.clone()
    query[:, 32:] = 0
    found = (retrieve(query, x, 1.0).state @ x.mT).argmax(-1)
    distance = (retrieve(query, x, 1.0).state - x).norm(dim=-1)
    assert ((found == torch.arange(1000)) & (distance < 0.5)).double().mean() == pytest.approx(0.998, abs=0.004)


def test_the_three_regimes():
    x = normal(1000, 64)
    cold, hot = retrieve(x, x, 1.0, steps=200), retrieve(x, x, 0.01, steps=500)
    assert torch.allclose(effective_patterns(cold.state, x, 1.0), torch.ones(1000).double(), atol=1e-3)
    assert (hot.state - x.mean(0)).norm(dim=-1).max() < 0.1  # the average of all
    assert effective_patterns(hot.state, x, 0.01).min() > 950
    warm = retrieve(x, x, 0.1, steps=500)
    together = (warm.state - warm.state[0]).norm(dim=-1) < 1e-3  # one fixed point, near the mean, for nearly all
    assert together.double().mean() > 0.99
    assert warm.state[0].norm() < 0.25 * x.norm(dim=-1).min()
    centres = 4 * normal(5, 64, seed=3)
    groups = (centres[:, None] + 0.3 * normal(5, 20, 64, seed=4)).flatten(0, 1)
    middle = retrieve(groups, groups, 0.05, steps=500)
    size = effective_patterns(middle.state, groups, 0.05)
    assert size.min() > 12  # metastable: the average of a group
    assert size.max() < 21
    assert (middle.state - groups.unflatten(0, (5, 20)).mean(1).repeat_interleave(20, 0)).norm(dim=-1).max() < 1


def test_a_large_beta_is_a_lookup_of_the_nearest_pattern_and_the_exponential_memory():
    x = normal(50, 40).sign()
    query = x.clone()
    query[:, :6] *= -1
    assert torch.equal((query @ x.mT).argmax(-1), torch.arange(50))
    assert torch.equal(update(query, x, 50.0).sign(), x)
    assert torch.equal(DenseMemory(x, Interaction("exponential")).update_once(query), x)


def test_patterns_on_a_sphere_are_stored_in_numbers_exponential_in_the_dimension():
    def kept(d, number):
        x = normal(number, d, seed=d).float()
        x = 2 * math.sqrt(d) * x / x.norm(dim=-1, keepdim=True)
        error = (update(x[:500], x) - x[:500]).norm(dim=-1)
        return (error < 0.2 * math.sqrt(d)).double().mean().item()

    capacity = [max(n for n in (100, 300, 1000, 3000, 10000, 30000) if kept(d, n) > 0.9) for d in (6, 7, 8)]
    assert capacity == [1000, 3000, 30000]


def test_the_layer_with_one_step_is_multi_head_attention():
    torch.manual_seed(0)
    layer, reference = HopfieldLayer(12, heads=3), torch.nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        for i, part in enumerate((layer.query, layer.key, layer.value)):
            reference.in_proj_weight[12 * i : 12 * (i + 1)] = part.weight
            reference.in_proj_bias[12 * i : 12 * (i + 1)] = part.bias
        reference.out_proj.weight.copy_(layer.out.weight)
        reference.out_proj.bias.copy_(layer.out.bias)
    state, patterns = torch.randn(2, 5, 12), torch.randn(2, 9, 12)
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    truth, _ = reference(state, patterns, patterns, key_padding_mask=~mask, need_weights=False)
    assert torch.allclose(layer(state, patterns, mask), truth, atol=1e-6)


def test_more_steps_retrieve_as_the_memory_does():
    torch.manual_seed(0)
    layer = HopfieldLayer(8, steps=3, beta=2.0).double()
    state, patterns = normal(1, 4, 8), normal(1, 20, 8, seed=1)
    query, key = layer.query(state)[0], layer.key(patterns)[0]
    settled = retrieve(query, key, 2.0, steps=2, tol=0).state
    found = (2.0 * settled @ key.mT).softmax(-1) @ layer.value(patterns)[0]
    assert torch.allclose(layer(state, patterns)[0], layer.out(found), atol=1e-10)


def test_pooling_learns_which_member_of_a_set_matters():
    """The label of a bag is the sign that its one marked member carries, among 11 distractors."""
    torch.manual_seed(0)
    pooling, head = HopfieldPooling(8), torch.nn.Linear(8, 1)
    bags = torch.randn(512, 12, 8)
    bags[..., 0], bags[:, 0, 0] = 0, 3.0
    bags = bags.take_along_dim(torch.rand(512, 12).argsort(-1)[..., None], 1)
    marked = bags[torch.arange(512), bags[..., 0].argmax(-1)]
    label = (marked[:, 1] > 0).float()
    parameters = [*pooling.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(150):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(pooling(bags[:400]))[:, 0, 0], label[:400])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = ((head(pooling(bags[400:]))[:, 0, 0] > 0) == (label[400:] > 0)).float().mean()
    assert right > 0.9
    assert pooling.layer.log_beta.grad.abs() > 0


def test_lookup_shapes_and_gradients():
    layer = HopfieldLookup(8, stored=5, heads=2, learn_beta=False)
    out = layer(torch.randn(3, 4, 8))
    assert out.shape == (3, 4, 8)
    out.sum().backward()
    assert layer.patterns.grad is not None
    assert layer.layer.log_beta.grad is None


def test_bad_input_is_refused_in_one_line():
    for call, words in (
        (lambda: update(torch.ones(3), torch.ones(2, 4)), "must fit"),
        (lambda: update(torch.ones(4), torch.ones(2, 4), beta=0), "beta must be positive"),
        (lambda: separation(torch.ones(1, 3)), "at least two patterns"),
        (lambda: HopfieldLayer(8, heads=3), "heads must divide"),
        (lambda: HopfieldLayer(8, steps=0), "steps must be at least 1"),
        (lambda: HopfieldLayer(8, beta=-1.0), "beta must be positive"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
