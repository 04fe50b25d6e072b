"""No-U-Turn trees against a recursive reference, chain by chain, and where they end."""

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc
from inference.base import fresh
from inference.density import Density
from inference.mcmc import nuts
from inference.mcmc.chains import Chains, Tuned
from inference.mcmc.metric import Metric

DEPTH = 5


def banana():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(x**2, 0.5))


class Leaf(SimpleNamespace):
    """x, n, log density, gradient and energy error of one point of a trajectory."""


def leapt(density, leaf, step, energy):
    half = leaf.n + 0.5 * step * leaf.grad
    x = leaf.x + step * half
    log_prob, grad = density(x)
    n = half + 0.5 * step * grad
    error = 0.5 * n @ n - log_prob - energy
    return Leaf(x=x, n=n, log_prob=log_prob, grad=grad, error=error if error.isfinite() else torch.tensor(torch.inf))


def straight(leaves):
    total = sum(leaf.n for leaf in leaves)
    return leaves[0].n @ total > 0 and leaves[-1].n @ total > 0


def grows_on(first, second):
    """Do two stretches, one after the other, make one that does not turn back?"""
    return straight(first + second) and straight([*first, second[0]]) and straight([first[-1], *second])


def subtree(density, leaf, step, energy, depth):
    """Leaves in the order in which they are reached, and whether the subtree may be joined."""
    if depth == 0:
        new = leapt(density, leaf, step, energy)
        return [new], bool(new.error <= 1000)
    first, good = subtree(density, leaf, step, energy, depth - 1)
    if not good:
        return first, False
    second, good = subtree(density, first[-1], step, energy, depth - 1)
    return first + second, good and grows_on(first, second)


def drawn(leaves, u):
    """One leaf in proportion to its weight, as each replaces the one before with probability w / sum w."""
    log_weight, chosen = torch.tensor(-torch.inf, dtype=torch.float64), None
    for leaf, v in zip(leaves, u, strict=False):
        log_weight = torch.logaddexp(log_weight, -leaf.error)
        if v.log() < -leaf.error - log_weight:
            chosen = leaf
    return chosen, log_weight


def recursive_nuts(density, x, n, size, direction, random):
    """One transition of one chain, given its momentum and its uniform numbers in order of use."""
    log_prob, grad = density(x)
    energy = 0.5 * n @ n - log_prob
    chosen = Leaf(x=x, n=n, log_prob=log_prob, grad=grad, error=torch.zeros_like(energy))
    tree, log_weight, forward = [chosen], torch.zeros_like(energy), direction < 0.5
    visited, doublings, active = [], 0, True
    for depth, u in enumerate(random):
        step = size if forward else -size
        leaves, good = subtree(density, tree[-1] if forward else tree[0], step, energy, depth)
        visited += leaves
        active = False
        if not good:
            break
        new, weight = drawn(leaves, u)
        doublings += 1
        active = grows_on(tree, leaves) if forward else grows_on(tree[::-1], leaves)
        chosen = new if u[-2].log() < weight - log_weight else chosen
        tree = tree + leaves if forward else leaves[::-1] + tree
        log_weight, forward = torch.logaddexp(log_weight, weight), u[-1] < 0.5
        if not active:
            break
    accept = sum((-leaf.error).exp().clamp(max=1.0) for leaf in visited) / len(visited)
    return chosen, doublings, visited, accept, bool(active)


@pytest.mark.parametrize("step_size", [0.05, 0.15, 0.4, 1.3])
def test_trees_are_those_of_the_recursive_sampler(step_size, monkeypatch):
    with fresh(banana):
        density = Density.of(banana)
        batched, chains = density.batched(24, compile=False), 24
    momenta, random, draw_normal, draw_uniform = [], [], nuts.normal, torch.rand
    monkeypatch.setattr(nuts, "normal", lambda *a: momenta.append(draw_normal(*a)) or momenta[-1])
    monkeypatch.setattr(torch, "rand", lambda *a, **k: random.append(draw_uniform(*a, **k)) or random[-1])
    generator = torch.Generator().manual_seed(4)
    transition = nuts.kernel(batched, generator, SimpleNamespace(max_tree_depth=DEPTH))
    x = 1.5 * torch.randn(2, chains, generator=generator, dtype=torch.float64).mT
    here = Chains(x, *batched.once(x))
    after, found = transition(here, Tuned(step_size, 1.0, Metric(torch.ones(2, dtype=torch.float64))), 0)
    for c in range(chains):
        single = lambda q: tuple(part[0] for part in batched.once(q.expand(chains, 2)))  # noqa: E731
        chosen, doublings, visited, accept, active = recursive_nuts(
            single, x[c], momenta[0][c], step_size, random[0][0, c], [u[:, c] for u in random[1:]]
        )
        torch.testing.assert_close(after.x[c], chosen.x)
        torch.testing.assert_close(after.grad[c], chosen.grad)
        torch.testing.assert_close(found["energy_error"][c], chosen.error, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found["acceptance_rate"][c], accept)
        assert int(found["n_steps"][c]) == len(visited)
        assert int(found["tree_depth"][c]) == doublings
        assert bool(found["reached_max_treedepth"][c]) == active
        assert bool(found["diverging"][c]) == any(leaf.error > 1000 for leaf in visited)
    if step_size > 0.1:
        assert len(found["n_steps"].unique()) > 2  # chains end at different leaves


def test_a_tree_that_may_not_grow_says_so():
    options = {"kernel": "nuts", "num_chains": 4, "num_warmup": 40, "num_samples": 20, "compile": False}
    fit = mcmc.fit(banana, max_tree_depth=1, **options)
    assert (fit.stats["n_steps"] == 1).all()
    assert fit.stats["reached_max_treedepth"].any()
    assert (fit.stats["tree_depth"] <= 1).all()
    assert not mcmc.fit(banana, **options).stats["reached_max_treedepth"].any()


def test_divergences_of_a_funnel_are_flagged():
    def funnel():
        v = pyro.sample("v", dist.Normal(0.0, 3.0))
        pyro.sample("x", dist.Normal(torch.zeros(9), (v / 2).exp()).to_event(1))

    with fresh(funnel):
        batched = Density.of(funnel).batched(512, compile=False)
    generator = torch.Generator().manual_seed(6)
    v = 3 * torch.randn(512, 1, generator=generator, dtype=torch.float64)
    x = torch.cat([v, (v / 2).exp() * torch.randn(512, 9, generator=generator, dtype=torch.float64)], 1)
    transition = nuts.kernel(batched, generator, SimpleNamespace(max_tree_depth=6))
    chains = Chains(x.mT.contiguous().mT, *batched.once(x))
    after, found = transition(chains, Tuned(0.5, 1.0, Metric(torch.ones(10, dtype=torch.float64))), 0)
    bad = found["diverging"]
    assert 20 < bad.sum() < 256
    assert v[bad].median() < -3 < 0 < v[~bad].median()  # in the neck, whose width is below the step's
    assert after.log_prob.isfinite().all()
    assert (found["energy_error"] < 1000).all()  # of the draw, which is never the divergent leaf
    assert (found["n_steps"][bad] < 2**6 - 1).all()
