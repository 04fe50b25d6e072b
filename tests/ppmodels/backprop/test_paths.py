"""Sums over paths: Bauer's formula, semirings, the swell of symbols, and marginals as derivatives."""

import math
import random
from itertools import pairwise

import pytest
import torch

from ppmodels.backprop.chain import log_partition, marginals
from ppmodels.backprop.graph import Edge, Graph, path_sum
from ppmodels.backprop.mlp import MLP
from ppmodels.backprop.operations import exp, log, relu, sigmoid, tanh
from ppmodels.backprop.semiring import COUNT, path_entropy, top_path
from ppmodels.backprop.symbolic import Symbol, differentiate, evaluate, graph_size, tree_size
from ppmodels.backprop.tape import Tape, gradient, value_and_gradient


def random_output(seed):
    """At most 12 nodes, of which the first three are inputs."""
    draw, tape = random.Random(seed), Tape()
    nodes = tape.variables(*(draw.gauss(0, 1) for _ in range(3)))
    while len(nodes) < 12:
        a, b = draw.choice(nodes), draw.choice(nodes)
        nodes.append(draw.choice([a * b, a + b, tanh(a), sigmoid(b), a - b]) if len(tape.nodes) < 12 else a * b)
    return nodes[:3], nodes[-1]


def ladder(n):
    """n diamonds one after the other."""
    edges = []
    for i in range(n):
        for side in "ab":
            edges += [Edge(i, (i, side), 0.5), Edge((i, side), i + 1, 1.5)]
    return Graph(edges)


def test_bauers_sum_over_paths_is_the_gradient():
    for seed in range(50):
        inputs, output = random_output(seed)
        graph, slope = Graph.of(output), gradient(output, inputs)
        for node, derivative in zip(inputs, slope, strict=True):
            assert path_sum(graph, node, output) == pytest.approx(derivative, abs=1e-12)
            assert graph.sum_over_paths(node, output) == pytest.approx(derivative, abs=1e-12)


def test_a_ladder_of_n_diamonds_has_2_to_the_n_paths_and_4_n_edges():
    for n in (1, 5, 12):
        assert sum(1 for _ in ladder(n).paths(0, n)) == 2**n
    visits = 0

    def one(edge):
        nonlocal visits
        visits += 1
        return 1

    assert ladder(60).sum_over_paths(0, 60, COUNT, one) == 2**60
    assert visits == 4 * 60
    assert ladder(60).sum_over_paths(0, 60) == pytest.approx(1.5**60)


def test_the_top_path_and_the_entropy_of_paths_are_those_of_enumeration():
    for seed in range(50):
        inputs, output = random_output(seed)
        graph = Graph.of(output)
        paths = list(graph.paths(inputs[0], output))  # with a pair of parallel edges, equal ones
        weights = [abs(math.prod(e.weight for e in p)) for p in paths]
        if sum(weights) == 0:
            assert path_entropy(graph, inputs[0], output) == 0
            continue
        best, path = top_path(graph, inputs[0], output)
        assert best == pytest.approx(max(weights), rel=1e-12)
        assert weights[paths.index(path)] == pytest.approx(best, rel=1e-12)
        share = [w / sum(weights) for w in weights]
        entropy = -sum(p * math.log(p) for p in share if p > 0)
        assert path_entropy(graph, inputs[0], output) == pytest.approx(entropy, abs=1e-10)
    assert path_entropy(ladder(10), 0, 10) == pytest.approx(10 * math.log(2))


def test_a_cycle_is_refused_in_one_line():
    with pytest.raises(ValueError, match="cycle"):
        Graph([Edge("a", "b", 1.0), Edge("b", "c", 1.0), Edge("c", "b", 1.0)])
    assert Graph([]).sum_over_paths("a", "b") == 0


def test_symbolic_derivatives_are_right_and_swell_where_a_shared_graph_does_not():
    x = Symbol("x")
    formula, trees, graphs = x, [], []
    for steps in range(1, 8):
        formula = 4 * formula * (1 - formula)  # the logistic map
        slope = differentiate(formula, x)
        trees.append(tree_size(slope))
        graphs.append(graph_size(slope))

        def logistic(v, steps=steps):
            for _ in range(steps):
                v = 4 * v * (1 - v)
            return v

        value, (derivative,) = value_and_gradient(logistic, 0.3)
        assert evaluate(formula, {x: 0.3}) == pytest.approx(value, abs=1e-12)
        assert evaluate(slope, {x: 0.3}) == pytest.approx(derivative, abs=1e-9)
    growth = [b / a for a, b in pairwise(trees[3:])]
    assert min(growth) > 1.9  # doubles with every step
    added = [b - a for a, b in pairwise(graphs[3:])]
    assert max(added) == min(added) <= 8  # grows by the same few operations
    assert trees[-1] > 10 * graphs[-1]


def test_symbols_cover_every_operation():
    x, y = Symbol("x"), Symbol("y")
    formula = exp(-x) * log(y) + x**y / sigmoid(x) - relu(x) + tanh(x * y)
    _, slope = value_and_gradient(lambda a, b: exp(-a) * log(b) + a**b / sigmoid(a) - relu(a) + tanh(a * b), 0.7, 1.3)
    at = {x: 0.7, y: 1.3}
    assert [evaluate(differentiate(formula, v), at) for v in (x, y)] == pytest.approx(slope, abs=1e-12)
    with pytest.raises(ValueError, match="no value for y"):
        evaluate(x * y, {x: 1.0})


def forward_backward(unary, transitions):
    """The textbook recursions, in probabilities."""
    u, v = (
        torch.tensor(unary, dtype=torch.float64).exp(),
        torch.tensor(transitions, dtype=torch.float64).exp(),
    )
    a, b = [u[0]], [torch.ones(len(v), dtype=torch.float64)]
    for row in u[1:]:
        a.append(row * (a[-1] @ v))
    for row in u.flip(0)[:-1]:
        b.insert(0, v @ (row * b[0]))
    z = a[-1].sum()
    node = torch.stack(a) * torch.stack(b) / z
    edge = sum(a[t][:, None] * v * (u[t + 1] * b[t + 1]) / z for t in range(len(u) - 1))
    return float(z.log()), node, edge


def test_derivatives_of_log_z_are_the_marginals_of_forward_backward():
    draw = random.Random(0)
    unary = [[draw.gauss(0, 1) for _ in range(3)] for _ in range(7)]
    transitions = [[draw.gauss(0, 1) for _ in range(3)] for _ in range(3)]
    log_z, node, edge = marginals(unary, transitions)
    truth = forward_backward(unary, transitions)
    assert log_z == pytest.approx(truth[0], abs=1e-10)
    assert torch.allclose(torch.tensor(node, dtype=torch.float64), truth[1], rtol=0, atol=1e-10)
    assert torch.allclose(torch.tensor(edge, dtype=torch.float64), truth[2], rtol=0, atol=1e-10)
    assert [sum(row) for row in node] == pytest.approx([1.0] * 7, abs=1e-12)
    assert log_z == pytest.approx(log_partition(unary, transitions), abs=1e-14)


def test_a_hidden_markov_models_log_z_is_its_log_likelihood():
    start, move = torch.tensor([0.6, 0.4]), torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    emit, seen = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]), [0, 2, 1, 1]
    unary = emit[:, seen].mT.log()
    unary[0] += start.log()
    log_z, node, _ = marginals(unary.tolist(), move.log().tolist())
    paths = torch.cartesian_prod(*[torch.arange(2)] * 4)
    joint = torch.stack([start[p[0]] * emit[p, torch.tensor(seen)].prod() * move[p[:-1], p[1:]].prod() for p in paths])
    assert log_z == pytest.approx(float(joint.sum().log()), abs=1e-6)
    smoothed = torch.stack([(joint * (paths[:, t] == 1)).sum() / joint.sum() for t in range(4)])
    assert [row[1] for row in node] == pytest.approx(smoothed.tolist(), abs=1e-6)
    with pytest.raises(ValueError, match=r"must be \(T, 2\)"):
        marginals([[0.0]], [[0.0, 0.0], [0.0, 0.0]])


def test_an_mlp_learns_xor():
    x, classes = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0]
    network = MLP.random([2, 4, 2], seed=1)
    losses = network.fit(x, classes, num_steps=400, lr=1.0)
    assert losses[-1] < 0.01
    assert losses[0] > 0.5
    assert network.predict(x) == classes
    with pytest.raises(ValueError, match="two or more positive widths"):
        MLP.random([2])
