"""Batched is one by one: for each rule of an operation, with each pattern of what varies, and for whole programs."""

import itertools

import pytest
import torch

from inference.base import fresh
from inference.density import Density, batching
from inference.density.graph import trace
from tests.inference.density import programs

aten = torch.ops.aten
C = 5

# name, function of some tensors, their shapes; one of the first `varying` at least carries the chains
CASES = [
    ("mv", torch.mv, [(3, 4), (4,)]),
    ("mv large", torch.mv, [(60, 40), (40,)]),
    ("mv long", torch.mv, [(500, 40), (40,)]),
    ("mm", torch.mm, [(3, 4), (4, 2)]),
    ("mm large", torch.mm, [(20, 15), (15, 12)]),
    ("mm few rows", torch.mm, [(2, 300), (300, 6)]),
    ("bmm", torch.bmm, [(6, 2, 3), (6, 3, 2)]),
    ("bmm large", torch.bmm, [(2, 14, 15), (2, 15, 13)]),
    ("bmm one", torch.bmm, [(1, 14, 15), (1, 15, 13)]),
    ("dot", torch.dot, [(4,), (4,)]),
    ("addmm", torch.addmm, [(2,), (3, 4), (4, 2)]),
    ("matmul", torch.matmul, [(2, 3, 4), (4,)]),
    ("einsum", lambda a, b: torch.einsum("ij,kj->ik", a, b), [(3, 4), (2, 4)]),
    ("cat", lambda a, b: torch.cat([a, b], -1), [(2, 3), (2, 1)]),
    ("stack", lambda a, b: torch.stack([a, b], -1), [(2, 3), (2, 3)]),
    ("where", lambda a, b: torch.where(a > 0, a, b), [(3,), (2, 3)]),
    ("where number", lambda a: torch.where(a > 0, a, 0.5), [(2, 3)]),
    ("add of ranks", torch.add, [(), (2, 3)]),
    ("slice", lambda a: a[:, 1:3], [(3, 4)]),
    ("select", lambda a: a.select(-1, 2) + a.select(0, 1)[0], [(3, 4)]),
    ("unsqueeze", lambda a: a.unsqueeze(-1) * a.unsqueeze(-2), [(3,)]),
    ("squeeze", lambda a: a.squeeze() + a.squeeze(-1).sum(), [(3, 1, 1)]),
    ("expand", lambda a: a.expand(4, -1, 2), [(3, 1)]),
    ("view", lambda a: a.reshape(-1, 2).sum(0), [(3, 4)]),
    ("permute", lambda a: a.permute(2, 0, -2).mT, [(2, 3, 4)]),
    ("t", lambda a: a.t() @ a, [(3, 2)]),
    ("flip", lambda a: a.flip([-1]), [(2, 3)]),
    ("pad", lambda a: torch.nn.functional.pad(a, [1, -1, 0, 2], value=0.3), [(3, 4)]),
    ("sum", lambda a: a.sum(-1) + a.sum((0, 1)) + a.sum(), [(3, 4)]),
    ("logsumexp", lambda a: a.logsumexp(-1), [(3, 4)]),
    ("amax", lambda a: a.amax(-1) + a.amin(-1), [(3, 4)]),
    ("max", lambda a: a.max(-1, keepdim=True).values, [(3, 4)]),
    ("argmax", lambda a: a.gather(-1, a.max(-1, keepdim=True).indices), [(3, 4)]),
    ("cumsum", lambda a: a.cumsum(-1), [(3, 4)]),
    ("cumprod", lambda a: a.cumprod(0), [(3, 4)]),
    ("log_softmax", lambda a: a.log_softmax(-1), [(3, 4)]),
    ("softmax", lambda a: a.softmax(0), [(3, 4)]),
    ("index", lambda a: a[:, torch.tensor([2, 0, 2])], [(3, 4)]),
    ("index apart", lambda a: a[torch.tensor([1, 0]), :, torch.tensor([2, 3])], [(2, 3, 4)]),
    ("index_select", lambda a: a.index_select(-1, torch.tensor([1, 1])), [(3, 4)]),
    ("gather", lambda a: a.gather(-1, torch.tensor([[1], [0], [3]])), [(3, 4)]),
    ("mask", lambda a: a[torch.tensor([True, False, True])], [(3, 4)]),
    ("index_put", lambda a, b: a.index_put((torch.tensor([1, 1, 0]),), b, accumulate=True), [(3, 2), (3, 2)]),
    ("index_put row", lambda a, b: a.index_put((torch.tensor([2, 0]),), b), [(3, 2), (2,)]),
    ("scatter", lambda a, b: a.scatter(-1, torch.tensor([[1], [0]]), b), [(2, 3), (2, 1)]),
    ("scatter_add", lambda a, b: a.scatter_add(-1, torch.tensor([[1, 1], [0, 2]]), b), [(2, 3), (2, 2)]),
    ("tril", lambda a: a.tril(-1) + a.triu(), [(3, 3)]),
    ("diagonal", lambda a: a.diagonal(dim1=-2, dim2=-1) + a.diagonal(0, -1, 0).sum(), [(2, 2, 2)]),
    ("diag_embed", torch.diag_embed, [(2, 3)]),
    ("trace", lambda a: a.diagonal(1).sum(), [(3, 3)]),
    ("cholesky", lambda a: torch.linalg.cholesky(a @ a.mT + torch.eye(a.shape[-1])), [(2, 3, 3)]),
    ("cholesky large", lambda a: torch.linalg.cholesky(a @ a.mT + torch.eye(a.shape[-1])), [(14, 14)]),
    ("solve", lambda a, b: torch.linalg.solve(a @ a.mT + torch.eye(3), b), [(3, 3), (3, 2)]),
    (
        "triangular",
        lambda a, b: torch.linalg.solve_triangular(a.tril() + 3 * torch.eye(3), b, upper=False),
        [(1, 3, 3), (1, 3, 2)],
    ),
    (
        "triangular from the right",
        lambda a, b: torch.linalg.solve_triangular(a.triu() + 3 * torch.eye(3), b, upper=True, left=False),
        [(3, 3), (2, 3)],
    ),
    ("cholesky inverse", lambda a: torch.cholesky_inverse(a.tril() + 3 * torch.eye(3)), [(3, 3)]),
    ("slogdet", lambda a: torch.linalg.slogdet(a @ a.mT + torch.eye(2)).logabsdet, [(2, 2)]),
    ("softplus", torch.nn.functional.softplus, [(3,)]),
    ("logsigmoid", torch.nn.functional.logsigmoid, [(3,)]),
    ("digamma", lambda a: torch.lgamma(a.exp()), [(3,)]),
]


def patterns(count):
    return [p for p in itertools.product([True, False], repeat=count) if any(p)]


@pytest.mark.parametrize(
    ("function", "shapes", "varies"),
    [
        pytest.param(f, s, p, id=f"{name}-{''.join('vf'[not v] for v in p)}")
        for name, f, s in CASES
        for p in patterns(len(s))
    ],
)
def test_value_and_gradient_of_an_operation(function, shapes, varies, double_precision):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn((*s, *([C] if v else ())), generator=generator) for s, v in zip(shapes, varies, strict=True)]
    ours = [t for t, v in zip(tensors, varies, strict=True) if v]
    fixed = [t for t, v in zip(tensors, varies, strict=True) if not v]

    def value_and_grad(*inputs):
        free, rest = iter(inputs[: len(ours)]), iter(inputs[len(ours) :])
        values = [next(free).detach().requires_grad_() if v else next(rest) for v in varies]
        with torch.enable_grad():
            out = function(*values)
            leaves = [x for x, v in zip(values, varies, strict=True) if v]
            grads = torch.autograd.grad((out * torch.arange(1.0, out.numel() + 1).reshape(out.shape)).sum(), leaves)
        return out.detach(), *grads

    first = [t[..., 0] for t in ours]
    graph = trace(value_and_grad, first, fixed)
    constants = graph.fixed(*fixed)
    together = batching.batch_last(graph.varying, len(ours))(*ours, *constants)
    for c in range(C):
        alone = value_and_grad(*(t[..., c] for t in ours), *fixed)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[..., c], b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", programs.TRACEABLE, ids=lambda f: f.__name__)
def test_batched_is_one_by_one(make):
    program, args = make()
    with fresh(program, args) as own:
        density = Density.of(own, args)
        batched = density.batched(4, compile=False)
        x = density._points(4, seed=21)
        value, grad = batched(x)
        assert batched.executor == "graph", batched.reason
        for i in range(4):
            truth, slope = density.value_and_grad(x[i])
            torch.testing.assert_close(value[i], truth, rtol=1e-8, atol=1e-10)
            torch.testing.assert_close(grad[i], slope, rtol=1e-8, atol=1e-8 * float(slope.abs().max()))


@pytest.mark.parametrize("make", programs.TRACEABLE, ids=lambda f: f.__name__)
def test_no_operation_falls_back_on_vmap(make, monkeypatch):
    def refuse(target, *rest):
        raise AssertionError(f"{target} has no rule")

    program, args = make()
    with fresh(program, args) as own:
        density = Density.of(own, args)
        assert density._traced()[0] is not None
        monkeypatch.setattr(batching, "_by_vmap", refuse)
        assert density.batched(3, compile=False).executor == "graph"


def test_an_unknown_operation_goes_through_vmap():
    module = trace(lambda x: (torch.linalg.pinv(x),), [torch.eye(3).double()], []).varying
    x = torch.randn(3, 3, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (out,) = batching.batch_last(module, 1)(x)
    torch.testing.assert_close(out, torch.linalg.pinv(x.movedim(-1, 0)).movedim(0, -1))
