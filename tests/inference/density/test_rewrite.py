"""The rewritten graph computes what the traced one does: on chosen cases, and on random ones."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.shape_prop import ShapeProp

from inference.density.graph import trace
from inference.density.rewrite import compact
from inference.density.tidy import tidy

aten = torch.ops.aten


def rewritten(function, *inputs):
    module = make_fx(function)(*inputs)
    for step in (compact, tidy):
        ShapeProp(module).propagate(*inputs)
        module = step(module)
    return module


def check(function, *inputs):
    module = rewritten(function, *inputs)
    for ours, truth in zip(module(*inputs), function(*inputs), strict=True):
        assert ours.dtype == truth.dtype
        torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)
    return module


def targets(module):
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


def elements(graph):
    return graph.elements


X = torch.linspace(0.1, 1.4, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x.expand(4, 3).exp().sum(0), x.expand(4, 3).log().sum()),
        lambda x: (x[:, None].expand(3, 5).sum(-1, keepdim=True).expand(3, 2) * 2,),
        lambda x: (torch.ones_like(x) * x + torch.zeros_like(x), x**1 + x**2, x / 1.0 - 0.0),
        lambda x: (-(x - x.flip(0)), x.neg().neg(), x + (-x.exp())),
        lambda x: (x.reshape(3, 1).reshape(1, 3).squeeze().unsqueeze(-1), x.reshape(3, 1, 1).permute(1, 0, 2)),
        lambda x: (x.expand(2, 3).permute(1, 0).contiguous().view(6).sum(), x.expand(2, 3).t().permute(1, 0)),
        lambda x: (x.expand(4, 3).logsumexp(-1), (x - x.logsumexp(-1, keepdim=True)).exp()),
        lambda x: (x.expand(4, 3).log_softmax(-1), x.expand(4, 3)[1:, 0], x.expand(4, 3).select(0, 2)),
        lambda x: (
            torch.bmm(x.expand(5, 1, 3), x[:, None].expand(5, 3, 2)),
            torch.bmm(x[:, None, None], x[:, None, None]),
        ),
        lambda x: (torch.where(x.expand(2, 3) > 0.5, x, 0.0), x.float().double(), x.to(torch.float64)),
        lambda x: (
            x[torch.arange(3)],
            x.expand(2, 3)[:, torch.arange(3)[:, None]],
            x[torch.arange(3)[:, None].expand(3, 4)],
        ),
        lambda x: (x[torch.arange(2)], x[torch.arange(1, 3)]),
        lambda x: (x[torch.tensor([True, False, True])], x.cumsum(0).expand(2, 3).cumprod(-1)),
    ],
)
def test_same_values(function):
    check(function, X)


def test_zeros_that_are_written_into_have_memory_of_their_own():
    module = check(lambda x: (torch.zeros_like(x).expand(2, 3).index_put((torch.tensor([1]),), x),), X)
    assert aten.clone.default in targets(module)
    check(lambda x: (torch.zeros(3, dtype=x.dtype).scatter(0, torch.tensor([2]), x[:1]),), X)
    check(lambda x: (x.new_zeros(1).expand(3).index_add(0, torch.tensor([1, 1]), x[:2]),), X)


def test_the_values_of_a_summed_out_site_are_no_index():
    def value_and_grad(x):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            z = torch.arange(3).reshape(3, 1).expand(3, 4)
            out = (x[z] * torch.arange(1.0, 13.0).double().reshape(3, 4)).sum()
            (grad,) = torch.autograd.grad(out, x)
        return out.detach(), grad

    module = check(value_and_grad, X)
    assert not {aten.index.Tensor, aten.index_put.default} & set(targets(module))


def _picked(index, x):
    return (x[index] + 0.5,)


def test_an_index_that_skips_or_repeats_stays():
    for index in (torch.arange(2), torch.tensor([0, 2, 1])):
        module = check(functools.partial(_picked, index), X)
        assert aten.index.Tensor in targets(module)


def test_an_expanded_scale_is_logged_once():
    graph = trace(lambda x: (x.exp().expand(1000).log().sum(),), [torch.zeros((), dtype=torch.float64)], [])
    assert graph.elements < 10
    torch.testing.assert_close(graph.varying(torch.tensor(0.7).double())[0], torch.tensor(700.0).double())


def test_slices_put_back_are_one_concatenation():
    def value_and_grad(x):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            out = x[:2].exp().sum() * x[2:5].sin().sum() + x[6:].square().sum()
            (grad,) = torch.autograd.grad(out, x)
        return out.detach(), grad

    module = check(value_and_grad, torch.linspace(-1, 1, 8, dtype=torch.float64))
    assert aten.slice_backward.default not in targets(module)
    assert targets(module).count(aten.cat.default) == 1


def test_slices_that_overlap_are_added():
    check(lambda x: (aten.slice_backward(x, [4], 0, 0, 3, 1) + aten.slice_backward(x, [4], 0, 1, 4, 1),), X)


STEPS = {
    "exp": lambda a, b: (a * 0.3).exp(),
    "add": lambda a, b: a + b,
    "sub": lambda a, b: -(a - b),
    "mul": lambda a, b: a * b,
    "one": lambda a, b: a * torch.ones_like(b),
    "sum": lambda a, b: a.sum(0, keepdim=True).expand(a.shape),
    "mean": lambda a, b: b.mean(-1, keepdim=True).expand(b.shape) + a,
    "turn": lambda a, b: a.permute(1, 0).reshape(a.shape),
    "twice": lambda a, b: a.reshape(-1).reshape(a.shape[1], a.shape[0]).mT.contiguous().view(a.shape),
    "row": lambda a, b: a[:1].expand(a.shape) + b.select(1, 0)[:, None],
    "lse": lambda a, b: (a - a.logsumexp(1, keepdim=True)).exp() + b,
    "choice": lambda a, b: torch.where(a > 0, b, 0.5),
    "range": lambda a, b: a[torch.arange(a.shape[0])[:, None], :].squeeze(1) + b,
    "product": lambda a, b: torch.bmm(a[:, None], b[:, :, None])[:, 0].expand(a.shape),
}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    plan=st.lists(
        st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=8
    ),
)
def test_random_graphs(rows, columns, plan):
    """Start from a row, a column, a scalar and a table, all expanded; each step takes two of what there is."""

    def function(row, column, scalar):
        made = [row.expand(rows, columns), column[:, None].expand(rows, columns), scalar.expand(rows, columns)]
        for name, i, j in plan:
            made.append(STEPS[name](made[i % len(made)], made[j % len(made)]).clamp(-50, 50))
        return tuple(made[3:])

    generator = torch.Generator().manual_seed(rows + 10 * columns)
    shapes = [(columns,), (rows,), ()]
    check(function, *(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes))
