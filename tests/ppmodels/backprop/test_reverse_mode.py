"""The tape gives torch's derivatives, in one visit an edge, at a fixed multiple of the function's cost."""

import itertools
import math
import random

import pytest
import torch

from ppmodels.backprop.dual import Dual, forward_gradient, jvp
from ppmodels.backprop.higher import derivatives, hessian, hessian_vector
from ppmodels.backprop.matrix import cross_entropy, linear, linear_backward, matmul, softmax
from ppmodels.backprop.numerical import central_difference, forward_difference
from ppmodels.backprop.operations import (
    counting,
    exp,
    inner,
    log,
    logsumexp,
    multiply,
    power,
    relu,
    sigmoid,
    tanh,
)
from ppmodels.backprop.tape import Tape, gradient, value_and_gradient

POINT = (1.5, 2.0, 3.0, 4.0)
TORCH = {
    exp: torch.exp,
    log: torch.log,
    relu: torch.relu,
    sigmoid: torch.sigmoid,
    tanh: torch.tanh,
    logsumexp: lambda *x: torch.stack(x).logsumexp(0),
    inner: lambda *x: torch.stack(x[: len(x) // 2]) @ torch.stack(x[len(x) // 2 :]),
    power: lambda x, y: x**y,
}


def exercise(x, y, z, v):
    return exp(y ** (-x) - log(z)) + (y - z) ** 2 * log(v)


def random_program(seed, inputs=4, operations=25):
    """A list of (operation, places of its three arguments, constant)."""
    draw = random.Random(seed)
    return [
        (draw.choice([*RULES]), [draw.randrange(inputs + k) for _ in range(3)], draw.uniform(-1, 2))
        for k in range(operations)
    ]


RULES = {  # p is positive; results are squashed so that no chain of operations overflows
    "add": lambda o, a, p, c: a[0] + a[1],
    "sub": lambda o, a, p, c: c - a[0] - a[1],
    "mul": lambda o, a, p, c: a[0] * a[1] * c,
    "div": lambda o, a, p, c: a[1] / p + c / p,
    "pow": lambda o, a, p, c: o[tanh](o[power](p, a[1])),
    "exp": lambda o, a, p, c: o[exp](-p),
    "log": lambda o, a, p, c: o[log](p),
    "relu": lambda o, a, p, c: o[relu](a[0]) - a[1],
    "sigmoid": lambda o, a, p, c: o[sigmoid](a[0]),
    "tanh": lambda o, a, p, c: -o[tanh](a[1]),
    "cross": lambda o, a, p, c: o[logsumexp](*a) - a[1],
    "inner": lambda o, a, p, c: o[tanh](o[inner](*a, a[1])),
}


def run(program, values, ops):
    """The program on any kind of number."""
    v = list(values)
    for name, at, c in program:
        a = [v[i] for i in at]
        v.append(RULES[name](ops, a, a[0] * a[0] + 0.5, c))
    return ops[tanh](v[-1]) + ops[tanh](v[-2] * v[-3])


@pytest.mark.parametrize("block", range(4))
def test_gradients_of_200_random_graphs_are_those_of_torch(block):
    ours = {op: op for op in TORCH}
    for seed in range(50 * block, 50 * block + 50):
        program = random_program(seed)
        point = [random.Random(seed + 1).gauss(0, 1) for _ in range(4)]
        value, slope = value_and_gradient(lambda *x, p=program: run(p, x, ours), *point)
        x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
        truth = run(program, x.unbind(), TORCH)
        grad = torch.autograd.grad(truth, x, allow_unused=True)[0] if truth.requires_grad else None
        grad = torch.zeros(4) if grad is None else grad
        assert value == pytest.approx(truth.item(), rel=1e-10, abs=1e-12)
        assert slope == pytest.approx(grad.tolist(), rel=1e-10, abs=1e-10)
        assert forward_gradient(lambda *x, p=program: run(p, x, ours), *point) == pytest.approx(
            slope, rel=1e-10, abs=1e-10
        )


def test_the_exercise_of_the_note():
    value, slope = value_and_gradient(exercise, *POINT)
    assert value == pytest.approx(1.861001, abs=1e-6)
    assert slope == pytest.approx([-0.1163337, -2.8984642, 2.6143533, 0.25], abs=1e-7)


def test_a_gradient_costs_at_most_five_functions_for_any_number_of_inputs():
    def product(*x):
        return math.prod(x[1:], start=x[0])

    def quotients(*x):
        total = x[0]
        for a, b in itertools.pairwise(x):
            total = a / (b + total)
        return total

    def powers(*x):
        total = x[0]
        for b in x[1:]:
            total = (b * b + 0.5) ** tanh(total)
        return total

    def network(*x):
        hidden = [tanh(inner(*x, *(math.sin(i + j) for j in range(len(x))))) for i in range(4)]
        return logsumexp(*hidden, *(sigmoid(h) * relu(h) for h in hidden)) - exp(hidden[0]) / hidden[1]

    for function in (product, quotients, powers, network):
        ratios = []
        for n in (2, 8, 32, 128):
            point = [1 + 0.1 * math.cos(i) for i in range(n)]
            inputs = Tape().variables(*point)
            with counting() as forward:
                out = function(*inputs)
            with counting() as backward:
                gradient(out, inputs)
            ratios.append(backward.operations / forward.operations)
        assert max(ratios) <= 5, function.__name__
        assert ratios[-1] < 1.5 * ratios[1]  # it does not grow with n


def test_forward_mode_costs_one_function_an_input():
    def function(*x):
        return sum(tanh(a * b) for a, b in itertools.pairwise(x))

    cost = {}
    for n in (8, 16, 32):
        point = [0.1 * i for i in range(n)]
        with counting() as evaluation:
            function(*Tape().variables(*point))
        with counting() as forward:
            forward_gradient(function, *point)
        cost[n] = forward.operations / evaluation.operations
    assert cost[16] / cost[8] == pytest.approx(2, rel=0.1)
    assert cost[32] / cost[16] == pytest.approx(2, rel=0.1)


def test_forward_and_reverse_mode_are_transposes():
    draw = random.Random(3)
    for _ in range(20):
        x, v, u = ([draw.gauss(0, 1) for _ in range(3)] for _ in range(3))

        def function(a, b, c):
            return [exp(-a * b), sigmoid(c) * a, logsumexp(a, b, c)]

        _, pushed = jvp(function, x, v)
        inputs = Tape().variables(*x)
        pulled = gradient(inner(*u, *function(*inputs)), inputs)
        assert math.fsum(map(math.prod, zip(u, pushed, strict=True))) == pytest.approx(
            math.fsum(map(math.prod, zip(pulled, v, strict=True))), abs=1e-14
        )


def test_matrices_linear_layers_and_their_backward_pass():
    generator = torch.Generator().manual_seed(0)
    x, w, b, delta = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((5, 3), (4, 3), (4,), (5, 4)))
    tape = Tape()
    nodes = [[tape.variables(*row) for row in m.tolist()] for m in (x, w)] + [tape.variables(*b.tolist())]
    y = linear(*nodes)
    z = inner(*itertools.chain(*y), *delta.flatten().tolist())
    flat = [*itertools.chain(*nodes[0]), *itertools.chain(*nodes[1]), *nodes[2]]
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    truth = torch.autograd.grad((leaves[0] @ leaves[1].mT + leaves[2]).mul(delta).sum(), leaves)
    by_hand = linear_backward(delta.tolist(), x.tolist(), w.tolist())
    for hand, torchs in zip(by_hand, truth, strict=True):
        assert torch.allclose(torch.tensor(hand, dtype=torch.float64), torchs, rtol=0, atol=1e-12)
    together = torch.cat([t.flatten() for t in truth])
    assert gradient(z, flat) == pytest.approx(together.tolist(), abs=1e-12)
    assert torch.tensor(matmul(x.tolist(), w.mT.tolist())).allclose((x @ w.mT).float())


def test_softmax_cross_entropy_and_its_gradient_at_any_size():
    for logits in ([0.3, -1.0, 2.0], [1e4, -1e4, 1e4 - 1]):
        _, slope = value_and_gradient(lambda *x: cross_entropy(x, 2), *logits)
        expected = torch.tensor(logits, dtype=torch.float64).softmax(0) - torch.tensor([0, 0, 1])
        assert slope == pytest.approx(expected.tolist(), abs=1e-12)
        assert softmax(logits) == pytest.approx((expected + torch.tensor([0, 0, 1])).tolist(), abs=1e-12)


def test_hessian_by_one_reverse_pass_an_input():
    def torch_exercise(p):
        x, y, z, v = p
        return torch.exp(y ** (-x) - torch.log(z)) + (y - z) ** 2 * torch.log(v)

    truth = torch.autograd.functional.hessian(torch_exercise, torch.tensor(POINT, dtype=torch.float64))
    assert torch.allclose(torch.tensor(hessian(exercise, *POINT), dtype=torch.float64), truth, rtol=0, atol=1e-10)
    v = [0.3, -1.0, 2.0, 0.5]
    product = truth @ torch.tensor(v, dtype=torch.float64)
    assert hessian_vector(exercise, POINT, v) == pytest.approx(product.tolist(), abs=1e-10)


def chain(*x):
    """Cost m proportional to n, and every pair of inputs interacts."""
    total = x[0]
    for a in x[1:]:
        total = tanh(total * a + a)
    return total


def test_order_k_takes_n_to_the_k_minus_one_times_m_operations():
    constants = {1: [], 2: [], 3: []}
    for n in (4, 8, 16):
        point = [0.5 + 0.3 * math.sin(i) for i in range(n)]
        with counting() as function:
            chain(*Tape().variables(*point))
        for order, found in constants.items():
            with counting() as counter:
                derivatives(chain, order, *point)
            found.append(counter.operations / (n ** (order - 1) * function.operations))
    for order, found in constants.items():  # the constant may depend on the order, never on n
        assert max(found) < 6**order
        assert found[2] < 1.3 * found[1]


def test_a_hessian_vector_product_does_not_grow_with_the_inputs():
    ratios = []
    for n in (4, 16, 64):
        point = [0.5 + 0.3 * math.sin(i) for i in range(n)]
        with counting() as function:
            chain(*Tape().variables(*point))
        with counting() as counter:
            hessian_vector(chain, point, [1.0] * n)
        ratios.append(counter.operations / function.operations)
    assert max(ratios) < 25
    assert ratios[2] < 1.1 * ratios[1]


def test_third_derivatives():
    tensor = derivatives(lambda x, y: x**3 * y**2, 3, 2.0, 3.0)
    assert tensor[0][0][0] == pytest.approx(6 * 9)
    assert tensor[0][1][0] == pytest.approx(6 * 2 * 2 * 3)
    assert tensor[0][1][1] == tensor[1][0][1] == pytest.approx(3 * 4 * 2)
    assert tensor[1][1][1] == pytest.approx(0, abs=1e-12)


def test_numerical_differences_have_their_orders_and_their_best_steps():
    truth = torch.tensor(value_and_gradient(exercise, *POINT)[1], dtype=torch.float64)

    def error(method, step):
        return float((torch.tensor(method(exercise, POINT, step), dtype=torch.float64) - truth).abs().max())

    assert math.log10(error(forward_difference, 1e-3) / error(forward_difference, 1e-4)) == pytest.approx(1, abs=0.1)
    assert math.log10(error(central_difference, 1e-2) / error(central_difference, 1e-3)) == pytest.approx(2, abs=0.1)
    steps = [10.0**-k for k in range(1, 14)]
    best = {m: min(steps, key=lambda h, m=m: error(m, h)) for m in (forward_difference, central_difference)}
    assert 1e-9 * 0.99 <= best[forward_difference] <= 1e-7 * 1.01
    assert 1e-6 * 0.99 <= best[central_difference] <= 1e-4 * 1.01
    assert error(forward_difference, 1e-8) < 1e-6
    assert error(central_difference, 1e-5) < 1e-9


def test_bad_calls_say_what_is_wrong_in_one_line():
    a, b = Tape().variable(1.0), Tape().variable(2.0)
    with pytest.raises(ValueError, match="two tapes"):
        a + b
    with pytest.raises(ValueError, match=r"log\(-1\) is undefined"):
        log(a - 2)
    with pytest.raises(ValueError, match=r"divide\(1, 0\) is undefined"):
        1 / (a - 1)
    with pytest.raises(ValueError, match=r"exp\(1000\) is undefined"):
        exp(1000.0)
    with pytest.raises(ValueError, match="not nested"):
        Dual(Dual(1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="one entry an input: 1 for 2"):
        jvp(multiply, [1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="order must be at least 1"):
        derivatives(exercise, 0, *POINT)
    with pytest.raises(ValueError, match="class from 0 to 1; it is 2"):
        cross_entropy([0.0, 1.0], 2)
    with pytest.raises(ValueError, match="rows of 2 by 1 rows"):
        matmul([[1.0, 2.0]], [[1.0]])
    assert gradient(3.0, [a]) == [0.0]
