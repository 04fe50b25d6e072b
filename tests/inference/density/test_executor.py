"""How a density is run, what happens when a faster way fails, and what is traced again."""

import logging
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import pytest
import torch

import inference.density as package
from inference.base import fresh
from inference.density import Density, executor
from inference.density.compiler import TOO_MANY_OPERATIONS, worth_compiling

F = torch.float64
Y = torch.tensor([0.5, 1.5], dtype=F)


def program_of_its_own():
    """A program that no other test has traced."""

    def program(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    return program


@contextmanager
def density_of(program, *args):
    with fresh(program, args) as own:
        yield Density.of(own, args)


def is_right(batched, density):
    x = density._points(batched.chains, seed=8)
    for _ in range(2):
        value, grad = batched(x)
        for i, row in enumerate(x):
            truth, slope = density.value_and_grad(row)
            torch.testing.assert_close(value[i], truth)
            torch.testing.assert_close(grad[i], slope)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_worth_compiling():
    assert worth_compiling(100, 1000, 100_000)[0]
    assert not worth_compiling(100, 1000, 10)[0]
    yes, reason = worth_compiling(TOO_MANY_OPERATIONS + 1, 1000, 10**9)
    assert not yes
    assert str(TOO_MANY_OPERATIONS + 1) in reason
    assert "10 calls would not earn back" in worth_compiling(100, 1000, 10)[1]


@pytest.mark.parametrize(
    ("compile", "calls", "kind"), [(True, 0, "inductor"), (False, 10**9, "graph"), ("auto", 1, "graph")]
)
def test_each_executor(compile, calls, kind):
    with density_of(program_of_its_own(), Y) as density:
        batched = density.batched(3, compile=compile, calls=calls)
        is_right(batched, density)
        assert batched.executor == kind, batched.reason


def test_auto_compiles_what_earns_it_back():
    with density_of(program_of_its_own(), Y) as density:
        batched = density.batched(3, compile="auto", calls=10**7)
        assert batched.executor == "inductor"
        assert batched.replayed().executor == "graph"


def test_a_compiler_that_fails_leaves_the_graph(monkeypatch, caplog):
    def compile_graph(module, inputs):
        raise RuntimeError("no C++ compiler here")

    monkeypatch.setattr(executor, "compile_graph", compile_graph)
    with density_of(program_of_its_own(), Y) as density, caplog.at_level(logging.WARNING, "inference"):
        batched = density.batched(3, compile=True)
        is_right(batched, density)
        assert batched.executor == "graph"
        assert "no C++ compiler here" in batched.reason
        assert len([w for w in warnings_of(caplog) if "no C++ compiler here" in w]) == 1


def test_a_compiler_that_errs_leaves_the_graph(monkeypatch, caplog):
    def compile_graph(module, inputs):
        return lambda *tensors: tuple(out + 1 for out in module(*tensors))

    monkeypatch.setattr(executor, "compile_graph", compile_graph)
    with density_of(program_of_its_own(), Y) as density, caplog.at_level(logging.WARNING, "inference"):
        batched = density.batched(3, compile=True)
        is_right(batched, density)
        assert batched.executor == "graph"
        assert len([w for w in warnings_of(caplog) if "differs from the graph" in w]) == 1


def test_a_graph_that_cannot_be_batched_runs_chain_by_chain(monkeypatch, caplog):
    def prepare(*args):
        raise RuntimeError("no batching rule")

    monkeypatch.setattr(package, "prepare", prepare)
    with density_of(program_of_its_own(), Y) as density, caplog.at_level(logging.WARNING, "inference"):
        batched = density.batched(3, compile=True)
        is_right(batched, density)
        assert (batched.executor, "no batching rule" in batched.reason) == ("graph", True)
        assert len([w for w in warnings_of(caplog) if "no batching rule" in w]) == 1


def test_a_batched_graph_that_errs_is_not_used(monkeypatch, caplog):
    def prepare(traced, data, example, compile, calls):
        made = executor.prepare(traced, data, example, compile, calls)
        evaluate = made._evaluate
        made._evaluate = lambda *tensors: tuple(out + 1 for out in evaluate(*tensors))
        return made

    monkeypatch.setattr(package, "prepare", prepare)
    with density_of(program_of_its_own(), Y) as density, caplog.at_level(logging.WARNING, "inference"):
        batched = density.batched(3, compile=False)
        is_right(batched, density)
        assert "differs from the program" in batched.reason
        assert len(warnings_of(caplog)) == 1


def test_a_program_that_cannot_be_traced_runs_eagerly(monkeypatch, caplog):
    def trace(*args):
        raise RuntimeError("not traceable")

    monkeypatch.setattr(package, "trace", trace)
    with density_of(program_of_its_own(), Y) as density, caplog.at_level(logging.WARNING, "inference"):
        for _ in range(2):
            batched = density.batched(3, compile=True)
            is_right(batched, density)
        assert (batched.executor, "not traceable" in batched.reason) == ("eager", True)
        assert len([w for w in warnings_of(caplog) if "not traceable" in w]) == 1


def test_a_branch_on_a_value_is_run_eagerly_and_right(caplog):
    def program():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x if x > 0 else 3 * x, 1.0), obs=torch.tensor(0.5, dtype=F))

    with density_of(program) as density, caplog.at_level(logging.WARNING, "inference"):
        batched = density.batched(6, compile=True)
        is_right(batched, density)
        assert (batched.executor, "depends on a value" in batched.reason) == ("eager", True)


@pytest.fixture
def traces(monkeypatch):
    """A list that grows with every trace of a program."""
    calls, original = [], package.trace

    def trace(*args):
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(package, "trace", trace)
    return calls


def test_new_data_of_the_same_shape_need_no_new_trace(traces):
    program = program_of_its_own()
    for y in (Y, Y + 1, Y * 3):
        with density_of(program, y) as density:
            is_right(density.batched(3, compile=False), density)
    assert len(traces) == 1


def test_new_data_of_the_same_shape_need_no_new_compilation(monkeypatch):
    compiled, program = [], program_of_its_own()

    def compile_graph(module, inputs):
        compiled.append(module)
        return module

    monkeypatch.setattr(executor, "compile_graph", compile_graph)
    for y in (Y, Y + 1, Y * 3):
        with density_of(program, y) as density:
            batched = density.batched(3, compile=True)
            is_right(batched, density)
            assert batched.executor == "inductor"
    assert len(compiled) == 1


def test_another_shape_is_traced_anew(traces):
    program = program_of_its_own()
    for y in (Y, torch.cat([Y, Y])):
        with density_of(program, y) as density:
            is_right(density.batched(3, compile=False), density)
    assert len(traces) == 2


def test_a_program_whose_own_data_changed_is_traced_anew(traces):
    inside = {"loc": torch.tensor(0.0, dtype=F)}

    def program():
        pyro.sample("x", dist.Normal(inside["loc"], 1.0))

    for loc in (0.0, 4.0):
        inside["loc"] = torch.tensor(loc, dtype=F)
        with density_of(program) as density:
            is_right(density.batched(3, compile=False), density)
    assert len(traces) == 2


@pytest.mark.parametrize("compile", [False, True])
def test_a_step_is_fused_with_the_density(compile, monkeypatch):
    monkeypatch.setattr(executor, "compile_graph", lambda module, inputs: module)
    with density_of(program_of_its_own(), Y) as density:
        batched = density.batched(4, compile=compile)

        def ascend(value_and_grad, x, other, rate):
            value, grad = value_and_grad(x)
            return value, x + rate * grad + 0 * other

        x, rate = density._points(4, seed=9), torch.tensor(0.1, dtype=F)
        step = batched.fuse(ascend)
        for _ in range(2):
            value, moved = step(x, x, rate)  # one tensor given twice
            truth, grad = batched.once(x)
            torch.testing.assert_close(value, truth)
            torch.testing.assert_close(moved, x + 0.1 * grad)
            x = moved


def test_parts_are_the_whole():
    with density_of(program_of_its_own(), Y) as density:
        x = density._points(7, seed=9)
        parts = density.batched(7, compile=False)
        density.divide(parts)
        density.divide(parts)
        assert (parts.parts, parts.executor) == (4, "graph")
        for ours, truth in zip(parts(x), density.batched(7, compile=False)(x), strict=True):
            torch.testing.assert_close(ours, truth)
