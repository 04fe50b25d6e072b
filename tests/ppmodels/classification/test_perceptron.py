"""The perceptron: its rule in both codings, its bound with the invariants behind it, and what it cannot learn."""

import math

import pytest
import torch

from ppmodels.classification.perceptron import kernel_perceptron, mistake_bound, perceptron, pocket

INPUTS = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
GATES = {"and": [0, 0, 0, 1], "or": [0, 1, 1, 1], "nand": [1, 1, 1, 0]}
XOR = torch.tensor([0, 1, 1, 0])


def separable(seed, rows=60, dim=3, least=0.02):
    """Rows that a known unit direction separates, with a margin, and that direction, its bias in front."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(dim + 1, generator=generator, dtype=torch.float64)
    truth = truth / truth.norm()
    x = torch.randn(4 * rows, dim, generator=generator, dtype=torch.float64)
    value = truth[0] + x @ truth[1:]
    kept = value.abs() > least
    return x[kept][:rows], (value[kept][:rows] >= 0).long(), truth


def test_both_codings_are_one_sequence():
    x, y, _ = separable(0)
    one, two = perceptron(x, y), perceptron(x, 2 * y - 1)
    assert torch.equal(one.path, two.path)
    weights, bias, t = torch.zeros(3, dtype=torch.float64), 0.0, 0  # the rule with labels 0 and 1, written out
    for _ in range(3):
        for x_n, y_n in zip(x, y.tolist(), strict=True):
            f = 1 if float(weights @ x_n + bias) >= 0 else 0
            if f != y_n:
                weights, bias, t = weights + (y_n - f) * x_n, bias + (y_n - f), t + 1
                torch.testing.assert_close(one.path[t], torch.cat([torch.tensor([bias]).double(), weights]))
    assert t > 0


def test_a_unit_fires_at_zero():
    found = perceptron(torch.zeros(1, 1), torch.tensor([1]))
    assert found.updates == 0
    assert found.predict(torch.zeros(1, 1)).tolist() == [1]


def test_mistakes_stay_below_the_bound_and_so_do_the_steps_of_its_proof():
    for seed in range(100):
        x, y, truth = separable(seed)
        found, bound = perceptron(x, y), mistake_bound(x, y, truth)
        assert found.separated
        assert found.updates <= bound
        rows = torch.cat([torch.ones(len(x), 1).double(), x], -1)
        gamma, radius = float(((2 * y - 1) * (rows @ truth)).min()), float(rows.norm(dim=1).max())
        t = torch.arange(found.updates + 1).double()
        assert (found.path @ truth >= t * gamma - 1e-9).all()
        assert (found.path.square().sum(-1) <= t * radius**2 + 1e-9).all()
        assert torch.equal(found.predict(x), y)
    with pytest.raises(ValueError, match="is on the wrong side"):
        mistake_bound(x, y, -truth)


def test_the_learning_rate_only_scales():
    x, y, _ = separable(3)
    slow, fast = perceptron(x, y, lr=0.1), perceptron(x, y, lr=10.0)
    assert slow.updates == fast.updates
    torch.testing.assert_close(slow.path * 100, fast.path)
    assert torch.equal(slow.predict(x), fast.predict(x))


@pytest.mark.parametrize("gate", GATES)
def test_gates_are_learned(gate):
    found = perceptron(INPUTS, torch.tensor(GATES[gate]))
    assert found.separated
    assert found.predict(INPUTS).tolist() == GATES[gate]


def test_xor_is_not_but_a_hidden_layer_or_a_kernel_learns_it():
    found = perceptron(INPUTS, XOR, num_steps=1000)
    assert not found.separated
    assert found.updates >= 1000  # at least one mistake in every pass
    rows = torch.cat([torch.ones(4, 1).double(), INPUTS], -1)
    planes = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right = ((planes @ rows.mT >= 0).long() == XOR).sum(-1)  # no plane is right four times
    assert int(right.max()) == 3
    assert int((pocket(INPUTS, XOR).predict(INPUTS) == XOR).sum()) <= 3
    alpha, clean = kernel_perceptron(INPUTS, XOR, lambda a, b: (1 + a @ b.mT) ** 2)
    assert clean
    gram = (1 + INPUTS @ INPUTS.mT) ** 2
    assert torch.equal((gram @ alpha >= 0).long(), XOR)


def test_a_linear_kernel_is_the_perceptron():
    x, y, _ = separable(5)
    found = perceptron(x, y)
    alpha, clean = kernel_perceptron(x, y, lambda a, b: 1 + a @ b.mT)
    assert clean
    assert float(alpha.abs().sum()) == found.updates
    torch.testing.assert_close(alpha @ x, found.weights)


def test_averages_and_votes_do_better_under_noise_and_margins_are_kept():
    generator = torch.Generator().manual_seed(0)
    x, y, _ = separable(7, rows=400, least=0.0)
    flip = torch.rand(len(x), generator=generator) < 0.15
    noisy = torch.where(flip, 1 - y, y)
    test_x, test_y, _ = separable(7, rows=400, least=0.0)
    last = perceptron(x[:200], noisy[:200], num_steps=10)
    said = last.predict(test_x), last.averaged().predict(test_x), last.voted(test_x)
    right = [float((one == test_y)[200:].double().mean()) for one in said]
    assert right[1] > right[0]
    assert right[2] > right[0]
    x, y, _ = separable(8, least=0.2)
    wide = perceptron(x, y, margin=5.0)
    assert wide.separated
    assert (((2 * y - 1) * wide.score(x)) > 5.0).all()


def test_no_margin_is_wider_than_the_support_vector_machines():
    svm = pytest.importorskip("sklearn.svm").SVC(kernel="linear", C=1e8)
    for seed in range(10):
        x, y, truth = separable(seed, least=0.2)
        rows, sign = torch.cat([torch.ones(len(x), 1).double(), x], -1), 2 * y - 1
        even = torch.cat([sign[:, None] * rows, -sign[:, None] * rows])  # through the origin, as the bias is a weight
        svm.fit(even.numpy(), [1] * len(x) + [-1] * len(x))
        widest = torch.tensor(svm.coef_[0])
        best = float((sign * (rows @ widest)).min() / widest.norm())
        found = perceptron(x, y, margin=10.0)
        weights = torch.cat([found.bias.reshape(1), found.weights])
        own = float((sign * (rows @ weights)).min() / weights.norm())
        square = float(rows.square().sum(1).max())
        assert best * 10 / (20 + square) <= own * (1 + 1e-3) <= best * (1 + 2e-3)  # Krauth and Mezard
        assert best >= float((sign * (rows @ truth)).min() / truth.norm()) * (1 - 1e-3)
        assert perceptron(x, y).updates <= square / best**2 * (1 + 1e-3)


def test_half_of_all_labellings_of_twice_as_many_points_are_separable():
    """Cover (1965): of 2^N labellings of N points in D dimensions (bias in one), C(N, D) are; at N = 2 D, half."""
    dim, rows, found, trials = 3, 6, 0, 200
    generator = torch.Generator().manual_seed(1)
    for _ in range(trials):
        x = torch.randn(rows, dim - 1, generator=generator, dtype=torch.float64)
        y = torch.randint(2, (rows,), generator=generator)
        found += perceptron(x, y, num_steps=300).separated
    count = 2 * sum(math.comb(rows - 1, k) for k in range(dim))
    assert count / 2**rows == 0.5
    assert abs(found / trials - 0.5) < 4 * 0.5 / trials**0.5


@pytest.mark.parametrize(("x", "y", "message"), [
    (INPUTS, torch.tensor([0, 1, 2, 1]), "row 2 has label 2"),
    (INPUTS * math.nan, XOR, "row 0 has label 0 and values"),
    (INPUTS[0], XOR, r"want x \(N, D\)"),
])  # fmt: skip
def test_bad_rows_are_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        perceptron(x, y)


def test_a_hidden_layer_solves_xor():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    step = torch.optim.LBFGS(net.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        step.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(INPUTS)[:, 0], XOR.double())
        loss.backward()
        return loss

    step.step(closure)
    assert torch.equal((net(INPUTS)[:, 0] >= 0).long(), XOR)
