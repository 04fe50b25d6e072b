"""Kernel ridge regression: primal and dual, limits, leave-one-out, landmarks, and classifiers."""

import math

import pytest
import torch
from sklearn.datasets import make_circles
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as reference_kernels

from ppmodels.kernels.classifier import perceptron_classifier, ridge_classifier
from ppmodels.kernels.features import RandomFeatures, quadratic_features
from ppmodels.kernels.functions import RBF, Linear, Polynomial, Precomputed
from ppmodels.kernels.landmarks import LandmarkRidge, conjugate_gradients
from ppmodels.kernels.ridge import KernelRidge, nadaraya_watson, penalty_path, primal_ridge
from tests.draws import normal


def data(rows=60, columns=3, seed=0):
    x = normal(rows, columns, seed=seed)
    return x, (x.sum(-1)).sin() + 0.1 * normal(rows, seed=seed + 1)


@pytest.mark.parametrize("kernel", [Linear(), Polynomial(2)], ids=repr)
def test_primal_and_dual_predict_the_same(kernel):
    x, y = data()
    new = normal(9, 3, seed=5)
    phi, phi_new = (quadratic_features(t) if isinstance(kernel, Polynomial) else t for t in (x, new))
    primal = phi_new @ primal_ridge(phi, y, 0.3)
    assert torch.allclose(KernelRidge.fit(x, y, kernel, 0.3).predict(new), primal, rtol=0, atol=1e-8)
    p, n = phi.shape[1], len(x)
    left = torch.linalg.solve(phi.mT @ phi + 0.3 * torch.eye(p), phi.mT)
    right = phi.mT @ torch.linalg.inv(phi @ phi.mT + 0.3 * torch.eye(n))
    assert torch.allclose(left, right, rtol=0, atol=1e-10)  # push-through


def test_no_penalty_interpolates_and_a_large_one_forgets():
    x = torch.linspace(0, 5, 15, dtype=torch.float64)[:, None]
    y = x[:, 0].sin()
    exact = KernelRidge.fit(x, y, RBF(0.4), 0.0)
    assert (exact.fitted() - y).abs().max() < 1e-6
    assert KernelRidge.fit(x, y, RBF(0.4), 1e9).fitted().abs().max() < 1e-7
    mean = KernelRidge.fit(x, y, RBF(0.4), 1e9, intercept=True).fitted()
    assert torch.allclose(mean, y.mean().expand(15), atol=1e-7)


def test_the_smoothers_eigenvalues_and_degrees_of_freedom():
    x, y = data()
    gram, penalty = RBF(1.0)(x), 0.2
    smoother = gram @ torch.linalg.inv(gram + penalty * torch.eye(60, dtype=torch.float64))
    values = torch.linalg.eigvalsh(gram)
    assert torch.allclose(torch.linalg.eigvalsh((smoother + smoother.mT) / 2), values / (values + penalty), atol=1e-12)
    fit = KernelRidge.fit(x, y, RBF(1.0), penalty)
    assert fit.degrees_of_freedom() == pytest.approx(smoother.trace().item(), abs=1e-9)
    assert torch.allclose(fit.fitted(), smoother @ y, atol=1e-10)
    assert torch.allclose(fit.fitted(), y - penalty * fit.alpha, atol=1e-10)


@pytest.mark.parametrize("intercept", [False, True])
def test_leave_one_out_is_that_of_refits(intercept):
    x, y = data(30)
    y = torch.stack([y + 2, y.square()], -1)  # two outputs
    fit = KernelRidge.fit(x, y, RBF(0.9), 0.1, intercept)
    for row in range(30):
        rest = torch.arange(30) != row
        without = KernelRidge.fit(x[rest], y[rest], RBF(0.9), 0.1, intercept)
        refit = y[row] - without.predict(x[row : row + 1])[0]
        assert torch.allclose(fit.leave_one_out()[row], refit, rtol=0, atol=1e-10)


def test_the_path_of_penalties_is_that_of_single_fits():
    x, y = data(40)
    penalties = torch.tensor([1e-3, 1e-1, 10.0], dtype=torch.float64)
    path = penalty_path(RBF(1.0)(x), y, penalties)
    for i, penalty in enumerate(penalties.tolist()):
        fit = KernelRidge.fit(x, y, RBF(1.0), penalty)
        df = fit.degrees_of_freedom()
        assert path["loo"][i].item() == pytest.approx(fit.leave_one_out().square().mean().item(), rel=1e-8)
        assert path["df"][i].item() == pytest.approx(df, rel=1e-8)
        gcv = (y - fit.fitted()).square().mean().item() / (1 - df / 40) ** 2
        assert path["gcv"][i].item() == pytest.approx(gcv, rel=1e-8)


def test_outputs_together_are_outputs_apart_and_a_gram_matrix_will_do():
    x, y = data()
    both = KernelRidge.fit(x, torch.stack([y, 2 * y + 1], -1), RBF(), 0.1)
    for k, column in enumerate((y, 2 * y + 1)):
        assert torch.allclose(both.predict(x[:5])[:, k], KernelRidge.fit(x, column, RBF(), 0.1).predict(x[:5]))
    known = Precomputed(RBF()(x))
    rows = torch.arange(60.0, dtype=torch.float64)[:, None]
    assert torch.allclose(KernelRidge.fit(rows, y, known, 0.1).predict(rows[:5]), both.predict(x[:5])[:, 0])


def test_a_gaussian_process_has_this_mean_and_variance():
    x, y = data()
    new = normal(9, 3, seed=5)
    fit = KernelRidge.fit(x, y, RBF(0.8), 0.04)
    reference = GaussianProcessRegressor(reference_kernels.RBF(0.8), alpha=0.04, optimizer=None).fit(
        x.numpy(), y.numpy()
    )
    mean, sd = reference.predict(new.numpy(), return_std=True)
    assert torch.allclose(fit.predict(new), torch.as_tensor(mean), atol=1e-9)
    assert torch.allclose(fit.variance(new).sqrt(), torch.as_tensor(sd), atol=1e-9)


def test_nadaraya_watson_is_a_weighted_mean():
    x, y = data()
    weight = RBF(0.5)(x[:4] + 0.1, x)
    expected = (weight / weight.sum(-1, keepdim=True)) @ y
    assert torch.allclose(nadaraya_watson(x, y, x[:4] + 0.1, RBF(0.5)), expected)


def test_random_features_converge_to_the_kernel_fit():
    x, y = data(100)
    exact = KernelRidge.fit(x, y, RBF(1.5), 0.5).fitted()
    error = {}
    for number in (100, 6400):
        runs = []
        for seed in range(4):
            phi = RandomFeatures.draw(RBF(1.5), 3, number, seed)(x)
            fitted = phi @ phi.mT @ torch.linalg.solve(phi @ phi.mT + 0.5 * torch.eye(100), y)
            runs.append((fitted - exact).square().mean())
        error[number] = torch.stack(runs).mean().sqrt().item()
    assert error[100] / error[6400] == pytest.approx(8, rel=0.4)


def test_landmarks_at_every_row_are_the_exact_fit():
    x, y = data(300)
    exact = KernelRidge.fit(x, y, RBF(1.0), 0.5)
    new = normal(50, 3, seed=8)
    for dtype, error in ((torch.float64, 1e-7), (torch.float32, 3e-3)):
        near = LandmarkRidge.fit(x, y, RBF(1.0), 0.5, landmarks=300, iterations=60, tol=1e-10, dtype=dtype)
        assert torch.allclose(near.predict(new), exact.predict(new), atol=error)


def test_landmarks_solve_their_normal_equations_in_a_few_steps(monkeypatch):
    x, y = data(6000)
    y = torch.stack([y, y.cos()], -1)
    kernel, penalty = RBF(1.5), 1.0
    fit = LandmarkRidge.fit(x, y, kernel, penalty, landmarks=300, iterations=20)
    cross, gram = kernel(x, fit.landmarks), kernel(fit.landmarks)
    gram += 1e-9 * torch.eye(300)
    beta = torch.linalg.solve(cross.mT @ cross + penalty * gram, cross.mT @ y)
    assert (fit.predict(x) - cross @ beta).square().mean().sqrt() < 1e-2
    fine = LandmarkRidge.fit(x, y, kernel, penalty, landmarks=300, iterations=60, tol=1e-10, dtype=torch.float64)
    assert (fine.predict(x) - cross @ beta).square().mean().sqrt() < 1e-3
    assert fit.residuals[-1] < 1e-3
    errors = [(f[:, 0] - x.sum(-1).sin()).square().mean().sqrt() for f in (fit.predict(x), cross @ beta)]
    assert errors[0] < 1.02 * errors[1]
    monkeypatch.setattr("ppmodels.kernels.landmarks.KEPT", 0)  # blocks made again in every step
    again = LandmarkRidge.fit(x, y, kernel, penalty, landmarks=300, iterations=20)
    assert torch.allclose(again.beta, fit.beta)
    monkeypatch.setattr("ppmodels.kernels.landmarks.SAMPLE", 1)
    falkon = LandmarkRidge.fit(x, y, kernel, penalty, landmarks=300)
    assert len(fit.residuals) < len(falkon.residuals) / 1.5
    assert (falkon.predict(x) - fit.predict(x)).square().mean().sqrt() < 1e-2


def test_conjugate_gradients_end_after_as_many_steps_as_unknowns():
    root = normal(8, 8)
    matrix, right = root @ root.mT + torch.eye(8), normal(8, 3, seed=2)
    solution, residuals = conjugate_gradients(lambda u: matrix @ u, right, 30, 1e-10)
    assert torch.allclose(solution, torch.linalg.solve(matrix, right), atol=1e-8)
    assert len(residuals) <= 10
    zero, _ = conjugate_gradients(lambda u: matrix @ u, torch.zeros(8, 1, dtype=torch.float64), 5, 1e-10)
    assert (zero == 0).all()


@pytest.mark.slow
def test_a_hundred_thousand_rows():
    """Eight columns, 2000 landmarks: the error of exact regression on 8000 rows is 0.168."""
    x = normal(101000, 8)
    y = (x[:, :4].sum(-1) / 2).sin() + 0.1 * normal(101000, seed=1)
    fit = LandmarkRidge.fit(x[:100000], y[:100000], RBF(2.0), 0.1, landmarks=2000, iterations=20)
    assert (fit.predict(x[100000:]) - y[100000:]).square().mean().sqrt() < 0.12


def test_kernel_classifiers_solve_what_linear_ones_cannot():
    xor = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    label = torch.tensor([0, 1, 1, 0])
    points, inside = make_circles(300, factor=0.4, noise=0.05, random_state=0)
    rings, inside = torch.as_tensor(points), torch.as_tensor(inside)
    for make in (ridge_classifier, perceptron_classifier):
        assert (make(xor, label, RBF(0.5)).predict(xor) == label).all()
        assert (make(xor, label, Polynomial(2)).predict(xor) == label).all()
        assert (make(xor, label, Linear()).predict(xor) == label).double().mean() <= 0.75
        right = make(rings[:200], inside[:200], RBF(0.5)).predict(rings[200:]) == inside[200:]
        assert right.double().mean() > 0.99
        linear = make(rings[:200], inside[:200], Linear()).predict(rings[200:]) == inside[200:]
        assert abs(linear.double().mean() - 0.5) < 0.2
    three = torch.cat([normal(30, 2, seed=k) * 0.3 + torch.tensor([3.0 * k, 0.0]) for k in range(3)])
    names = torch.arange(3).repeat_interleave(30) * 10 + 5
    assert (perceptron_classifier(three, names, RBF(1.0)).predict(three) == names).all()


def test_bad_input_is_refused_in_one_line():
    x, y = data(10)
    twins = torch.cat([x, x[3:4]])
    for call, words in (
        (lambda: KernelRidge.fit(twins, twins[:, 0], RBF(), 0.0), "rows 3 and 10 are the same point"),
        (lambda: KernelRidge.fit(x, x[:, 0], Linear(), 0.0), "singular at penalty 0; use a larger one"),
        (lambda: KernelRidge.fit(x, y[:5], RBF(), 1.0), "y must have 10 finite rows"),
        (lambda: KernelRidge.fit(x, y * math.nan, RBF(), 1.0), "finite rows"),
        (lambda: KernelRidge.fit(x * math.inf, y, RBF(), 1.0), "in row 0, column 0"),
        (lambda: KernelRidge.fit(x, y, RBF(), -1.0), "penalty must not be negative"),
        (lambda: LandmarkRidge.fit(x, y, RBF(), 0.0, landmarks=5), "penalty must be positive"),
        (lambda: LandmarkRidge.fit(x, y, RBF(), 1.0, landmarks=50), "landmarks 1 to 10"),
        (lambda: LandmarkRidge.fit(x, y[:5], RBF(), 1.0, landmarks=5), "y must have 10 rows"),
        (lambda: ridge_classifier(x, torch.ones(10), RBF()), "at least two classes"),
        (lambda: ridge_classifier(x, torch.ones(9), RBF()), r"labels must be \(10,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    doubled = KernelRidge.fit(twins, twins[:, 0], RBF(), 0.1)  # with a penalty, twins do no harm
    assert doubled.fitted().isfinite().all()
