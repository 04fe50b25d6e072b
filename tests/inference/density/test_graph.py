"""Traces: data are inputs, what does not vary is computed beforehand, and failures stay in their chain."""

import torch

from inference.density.graph import LARGE, batch, trace

F = torch.float64


def test_data_are_inputs_and_are_folded():
    graph = trace(lambda x, y: (x * y.exp().sum(),), [torch.ones(2, dtype=F)], [torch.ones(3, dtype=F)])
    assert graph.size == 1
    for y in (torch.zeros(3, dtype=F), torch.tensor([1.0, 2.0, 3.0], dtype=F)):
        (out,) = graph.varying(torch.full((2,), 2.0, dtype=F), *graph.fixed(y))
        torch.testing.assert_close(out, torch.full((2,), 2.0, dtype=F) * y.exp().sum())


def test_large_constants_made_from_nothing_are_made_anew():
    def constants(n):
        x = torch.ones(n, dtype=F)
        return len(trace(lambda x: (x * torch.arange(n).sin(),), [x], []).fixed())

    assert constants(LARGE // 2) == 1
    assert constants(2 * LARGE) == 0


def test_what_is_computed_twice_or_never_is_dropped():
    def function(x):
        torch.randn(3)
        return (x.exp() + x.exp() + x.detach().alias_copy() * 0,) if False else (x.exp() + x.exp(),)

    assert trace(function, [torch.ones(2, dtype=F)], []).size == 2


def test_operations_in_place_become_functions():
    def function(x):
        y = x.clone()
        y[0] = 3.0
        y.mul_(2)
        return (y,)

    graph = trace(function, [torch.ones(2, dtype=F)], [])
    x = torch.tensor([5.0, 7.0], dtype=F)
    torch.testing.assert_close(graph.varying(x, *graph.fixed())[0], torch.tensor([6.0, 14.0], dtype=F))
    torch.testing.assert_close(x, torch.tensor([5.0, 7.0], dtype=F))


def test_a_factorisation_that_fails_spoils_its_chain_alone():
    def function(x):
        return (torch.linalg.cholesky(torch.eye(14, dtype=F) * x).diagonal().sum(),)

    graph = trace(function, [torch.ones((), dtype=F)], [])
    whole = batch(graph, [torch.ones(3, dtype=F)], [])
    (out,) = whole.varying(torch.tensor([1.0, -1.0, 4.0], dtype=F), *whole.fixed())
    assert out[1].isnan()
    torch.testing.assert_close(out[[0, 2]], torch.tensor([14.0, 28.0], dtype=F))


def test_a_maximum_whose_place_nobody_asks_for_is_a_reduction():
    names = str(trace(lambda x: (x.max(0).values,), [torch.ones(3, 2, dtype=F)], []).varying.graph)
    assert "amax" in names
    assert "getitem" not in names


def test_batched_size_does_not_grow_with_the_chains():
    graph = trace(lambda x, y: ((x - y).square().sum(),), [torch.ones(3, dtype=F)], [torch.ones(3, dtype=F)])
    sizes = {batch(graph, [torch.ones(c, 3, dtype=F)], [torch.ones(3, dtype=F)]).size for c in (1, 2, 64)}
    assert len(sizes) == 1
