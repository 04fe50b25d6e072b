"""Kernels are inner products: their Gram matrices are positive, and equal those of explicit features."""

import math

import pytest
import torch

from ppmodels.kernels.features import NystromFeatures, RandomFeatures, quadratic_features
from ppmodels.kernels.functions import RBF, Cosine, Laplace, Linear, Matern, Polynomial, Precomputed, Sigmoid
from ppmodels.kernels.similarity import compare, dissimilarity, from_kernel, kernel_alignment, permutation_test
from tests.draws import normal

KERNELS = [Linear(), Polynomial(3), RBF(0.7), RBF((0.5, 1.0, 2.0)), Laplace(), Matern(0.5), Matern(1.5), Matern(2.5)]
KERNELS += [Cosine()]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_gram_matrices_are_positive_and_consistent(kernel):
    x, y = normal(60, 3), normal(20, 3, seed=1)
    gram = kernel(x)
    assert torch.linalg.eigvalsh(gram).min() >= -1e-10
    assert torch.allclose(gram, gram.mT)
    assert torch.allclose(gram.diagonal(), kernel.diagonal(x), atol=1e-12)
    assert torch.allclose(kernel(x, torch.cat([x, y]))[:, 60:], kernel(x, y), atol=1e-12)
    far = x + 1e6  # squares cancel there, unless the origin is moved
    if isinstance(kernel, (RBF, Matern)):
        assert torch.allclose(kernel(far), gram, atol=1e-7)


def test_kernels_by_their_formulas():
    x, y = normal(4, 2), normal(5, 2, seed=1)
    gap = x[:, None] - y
    assert torch.allclose(RBF(0.5)(x, y), (-gap.square().sum(-1) / 0.5).exp())
    assert torch.allclose(Laplace(2.0)(x, y), (-gap.abs().sum(-1) / 2).exp())
    assert torch.allclose(Sigmoid(0.3, -1.0)(x, y), (0.3 * x @ y.mT - 1).tanh())
    r = gap.norm(dim=-1) / 0.8
    assert torch.allclose(Matern(0.5, 0.8)(x, y), (-r).exp())
    assert torch.allclose(Matern(1.5, 0.8)(x, y), (1 + 3**0.5 * r) * (-(3**0.5) * r).exp())
    assert torch.allclose(Matern(2.5, 0.8)(x, y), (1 + 5**0.5 * r + 5 / 3 * r**2) * (-(5**0.5) * r).exp())
    gram = RBF()(x)
    rows = torch.tensor([[2.0], [0.0]])
    assert torch.equal(Precomputed(gram)(rows, torch.arange(4)[:, None]), gram[[2, 0]])


def test_degree_two_is_an_explicit_map():
    x, y = normal(10, 4), normal(7, 4, seed=1)
    product = quadratic_features(x, 1.5) @ quadratic_features(y, 1.5).mT
    assert torch.allclose(product, Polynomial(2, 1.5)(x, y), atol=1e-12)
    assert quadratic_features(x).shape == (10, 15)


@pytest.mark.parametrize("kernel", [RBF(1.3), Laplace(2.0), Matern(1.5, 1.1)], ids=repr)
def test_random_features_approach_the_kernel_as_the_root_of_their_number(kernel):
    x = normal(40, 3)
    error = {}
    for number in (50, 800, 12800):
        runs = []
        for seed in range(12):
            features = RandomFeatures.draw(kernel, 3, number, seed)(x)
            runs.append((features @ features.mT - kernel(x)).square().mean())
        error[number] = torch.stack(runs).mean().sqrt().item()
    assert error[50] / error[800] == pytest.approx(4, rel=0.25)
    assert error[800] / error[12800] == pytest.approx(4, rel=0.25)
    with pytest.raises(ValueError, match="not Linear"):
        RandomFeatures.draw(Linear(), 3, 10)


def test_nystrom_features_are_exact_on_their_landmarks():
    x = normal(30, 3)
    twice = torch.cat([x, x[:5]])  # duplicates do no harm
    for landmarks in (x, twice):
        features = NystromFeatures.fit(landmarks, RBF(2.0))(x)
        assert torch.allclose(features @ features.mT, RBF(2.0)(x), atol=1e-8)


def test_dissimilarities_and_their_comparison():
    x = normal(12, 5)
    correlation = torch.corrcoef(x)
    assert torch.allclose(dissimilarity(x), 1 - correlation, atol=1e-12)
    assert torch.allclose(dissimilarity(x, "euclidean"), torch.cdist(x, x), atol=1e-7)
    assert torch.allclose(from_kernel(x, Linear()), torch.cdist(x, x).square(), atol=1e-10)
    rotated = x @ torch.linalg.qr(normal(5, 5, seed=2)).Q * 3
    for by in ("pearson", "spearman", "kendall"):
        assert compare(dissimilarity(x, "euclidean"), dissimilarity(rotated, "euclidean"), by) == pytest.approx(1)
    assert compare(dissimilarity(x, "squared"), dissimilarity(x, "euclidean")) == pytest.approx(1)  # ranks only
    rbf = from_kernel(x, RBF(2.0))  # similarity exp(-distance) keeps the order of distances
    assert compare(rbf, dissimilarity(x, "euclidean")) == pytest.approx(1)
    other = dissimilarity(normal(12, 5, seed=11), "euclidean")
    assert abs(compare(dissimilarity(x, "euclidean"), other)) < 0.5
    assert permutation_test(dissimilarity(x), dissimilarity(x + 0.3 * normal(12, 5, seed=4)), 200)[1] < 0.01
    assert permutation_test(dissimilarity(x), other, 200)[1] > 0.05


def test_kernel_alignment_sees_through_rotation_scale_and_shift():
    x = normal(30, 4)
    moved = 2 * x @ torch.linalg.qr(normal(4, 4, seed=1)).Q + 3
    assert kernel_alignment(x @ x.mT, moved @ moved.mT) == pytest.approx(1, abs=1e-12)
    y = normal(30, 4, seed=5)
    centred = x - x.mean(0), y - y.mean(0)
    top = (centred[1].mT @ centred[0]).square().sum()
    bottom = math.prod((c.mT @ c).norm().item() for c in centred)
    assert kernel_alignment(x @ x.mT, y @ y.mT) == pytest.approx(float(top) / bottom, abs=1e-12)


def test_bad_input_is_refused_in_one_line():
    for call, words in (
        (lambda: RBF(0.0), "lengthscale must be positive"),
        (lambda: RBF((1.0, 2.0))(normal(3, 3)), "2 lengthscales were given for 3 columns"),
        (lambda: Matern(1.0), "nu must be"),
        (lambda: Polynomial(0), "degree must be"),
        (lambda: Polynomial(2, -1.0), "offset must not be negative"),
        (lambda: Linear()(normal(3, 2), normal(3, 3)), "cannot be compared"),
        (lambda: Precomputed(normal(3, 2)), "square"),
        (lambda: Precomputed(normal(3, 3)), "symmetric"),
        (lambda: dissimilarity(torch.tensor([[1.0, math.nan]])), "row 0, column 1"),
        (lambda: dissimilarity(torch.ones(3, 2)), "row 0 is constant"),
        (lambda: dissimilarity(normal(3, 3), "manhattan"), "kind must be"),
        (lambda: compare(torch.zeros(4, 4), torch.zeros(3, 3)), "are needed"),
        (lambda: compare(torch.zeros(4, 4), torch.zeros(4, 4)), "correlates with nothing"),
        (lambda: compare(dissimilarity(normal(4, 4)), dissimilarity(normal(4, 4)), "tau"), "by must be"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
