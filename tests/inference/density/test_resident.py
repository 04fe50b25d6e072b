"""A step repeated in one place gives the very numbers of the step called again and again."""

import pytest
import torch

from inference.base import fresh
from inference.density import Density
from inference.density.compiler import compile_graph
from inference.density.graph import trace
from inference.density.resident import NotResident, Resident
from inference.mcmc.chains import leapfrog
from tests.inference.density import programs


def compiled(function, *example):
    graph = trace(function, list(example), [])
    return compile_graph(graph.varying, [*example, *graph.fixed()])


def test_steps_of_a_density_are_the_same_bits():
    program, args = programs.regression()
    with fresh(program, args) as own:
        density = Density.of(own, args)
        batched = density.batched(6, compile=True)
        step, repeat = batched.fuse(leapfrog), batched.repeat(leapfrog, 3)
        dim = density.dim
        factor = torch.eye(dim).mT
        for times in (1, 2, 3, 4, 7):  # other inputs in the same room each time
            g = torch.Generator().manual_seed(times)
            x, n, slope = (torch.randn(dim, 6, generator=g).mT for _ in range(3))
            length = torch.full((6, 1), 0.01 * times)
            found = step(x, n, slope, length, factor)
            for _ in range(times - 1):
                found = step(*found[:3], length, factor)
            repeated = repeat(times, x, n, slope, length, factor)
            assert all(torch.equal(a, b) for a, b in zip(repeated, found, strict=True))
        (loop,) = batched._loops.values()
        assert any(isinstance(cell.cell_contents, Resident) for cell in loop.__closure__)


def test_operations_that_make_their_own_results_are_kept_in_place():
    def step(x, a):
        return torch.linalg.solve_triangular(a, x, upper=False).cumsum(0), x.sum()

    a = torch.eye(40, dtype=torch.float64) + 0.1 * torch.ones(40, 40, dtype=torch.float64).tril()
    x = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    once = compiled(step, x, a)
    resident = Resident(once._graph.current_callable, [x, a], 1)
    found = once(x, a)
    for times in range(2, 5):
        found = once(found[0], a)
        assert all(map(torch.equal, resident(times, x, a), found))


def test_an_input_may_be_expanded():
    x = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
    row = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64).expand(3, 4)
    once = compiled(lambda x, row: (0.5 * x + row, x.sum()), x, row)
    resident = Resident(once._graph.current_callable, [x, row], 1)
    assert all(map(torch.equal, resident(2, x, row), once(once(x, row)[0], row)))


def test_what_cannot_stay_in_place_is_refused():
    x = torch.arange(4.0, dtype=torch.float64)
    through = compiled(lambda x, y: (y, x + y), x, x + 1)
    with pytest.raises(NotResident, match=r"one of its inputs|not stored"):
        Resident(through._graph.current_callable, [x, x + 1], 1)
    wider = compiled(lambda x: (torch.stack([x, x]), x), x)
    with pytest.raises(NotResident, match="elsewhere"):
        Resident(wider._graph.current_callable, [x], 1)
