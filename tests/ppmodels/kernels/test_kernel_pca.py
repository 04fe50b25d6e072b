"""Kernel PCA is PCA in feature space, and its Nyström form is the same where every row is a landmark."""

import pytest
import torch
from sklearn.datasets import make_circles
from sklearn.decomposition import KernelPCA as Reference

from ppmodels.kernels.features import quadratic_features
from ppmodels.kernels.functions import RBF, Linear, Polynomial
from ppmodels.kernels.kernel_pca import KernelPCA, centre
from ppmodels.kernels.nystrom_pca import NystromPCA
from ppmodels.kernels.spectral import elastic_energy, laplacian, laplacian_eigenmaps
from tests.draws import normal


def circles(rows=400, noise=0.05):
    x, label = make_circles(rows, factor=0.3, noise=noise, random_state=0)
    return torch.as_tensor(x), torch.as_tensor(label)


def best_threshold(score, label):
    """Accuracy of the best single cut along one coordinate."""
    order = score.argsort()
    right = label[order].cumsum(0)
    below = torch.arange(1, len(label) + 1) - right
    accuracy = (below + label.sum() - right) / len(label)
    return max(accuracy.max().item(), 1 - accuracy.min().item())


def test_centring_is_that_of_the_features():
    x = normal(20, 3)
    gram, n = Polynomial(2)(x), 20
    ones = torch.full((n, n), 1 / n, dtype=torch.float64)
    h = torch.eye(n, dtype=torch.float64) - ones
    features = quadratic_features(x)
    features = features - features.mean(0)
    for other in (gram - ones @ gram - gram @ ones + ones @ gram @ ones, h @ gram @ h, features @ features.mT):
        assert torch.allclose(centre(gram), other, rtol=0, atol=1e-12 * gram.abs().max())
    assert (centre(gram) @ torch.ones(n, dtype=torch.float64)).abs().max() < 1e-11


@pytest.mark.parametrize(("rows", "columns"), [(12, 30), (60, 5)])
def test_a_linear_kernel_is_pca(rows, columns):
    x = normal(rows, columns) @ torch.diag(torch.linspace(1, 3, columns, dtype=torch.float64))
    fit = KernelPCA.fit(x, Linear())
    centred = x - x.mean(0)
    u, s, v = torch.linalg.svd(centred, full_matrices=False)
    rank = min(rows - 1, columns)
    assert len(fit.eigenvalues) == rank
    scores = u[:, :rank] * s[:rank]
    signs = (scores * fit.scores()).sum(0).sign()
    assert torch.allclose(fit.scores(), scores * signs, rtol=0, atol=1e-8)
    assert torch.allclose(fit.eigenvalues, rows * scores.var(0, correction=0), rtol=1e-10)
    new = normal(7, columns, seed=3)
    assert torch.allclose(fit.transform(new), (new - x.mean(0)) @ v[:rank].mT * signs, rtol=0, atol=1e-8)
    assert fit.explained().sum() == pytest.approx(1)


def test_normalisation_and_projection():
    x = normal(50, 3)
    fit = KernelPCA.fit(x, RBF(1.5), 6)
    gram = centre(RBF(1.5)(x))
    assert torch.allclose(fit.alpha.square().sum(0), 1 / fit.eigenvalues)
    assert torch.allclose((fit.alpha * (gram @ fit.alpha)).sum(0), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(fit.transform(x), fit.scores(), rtol=0, atol=1e-10)
    u = fit.alpha * fit.eigenvalues.sqrt()
    assert torch.allclose(fit.scores(), fit.eigenvalues.sqrt() * u, rtol=0, atol=1e-12)
    shift = RBF(1.5)(x) @ fit.alpha - fit.scores()  # without centring: a constant a component
    new = normal(8, 3, seed=1)
    assert torch.allclose(RBF(1.5)(new, x) @ fit.alpha - fit.transform(new), shift[:8], rtol=0, atol=1e-10)
    reference = Reference(6, kernel="rbf", gamma=1 / (2 * 1.5**2)).fit(x.numpy())
    truth = torch.as_tensor(reference.transform(new.numpy()))
    assert torch.allclose(fit.transform(new).abs(), truth.abs(), atol=1e-8)


def test_reconstruction_error_is_the_sum_of_what_was_left_out():
    x = normal(30, 3)
    whole, some = KernelPCA.fit(x, Polynomial(2)), KernelPCA.fit(x, Polynomial(2), 4)
    assert len(whole.eigenvalues) == 9  # ten quadratic features, one of them constant
    assert some.reconstruction_error() == pytest.approx(whole.eigenvalues[4:].sum().item(), rel=1e-9)
    features = quadratic_features(x)
    features = features - features.mean(0)
    left = features.square().sum() - some.scores().square().sum()
    assert some.reconstruction_error() == pytest.approx(left.item(), rel=1e-9)


def test_few_components_of_many_rows_are_the_same():
    x = normal(700, 3)
    few, whole = KernelPCA.fit(x, RBF(1.0), 5), torch.linalg.eigvalsh(centre(RBF(1.0)(x)))
    assert torch.allclose(few.eigenvalues, whole.flip(0)[:5], rtol=1e-9)
    assert torch.allclose(few.transform(x), few.scores(), atol=1e-8)


def test_circles_are_separated_where_pca_fails():
    x, label = circles()
    kernel = KernelPCA.fit(x, RBF(0.4), 4).scores()
    assert max(best_threshold(kernel[:, k], label) for k in range(4)) > 0.99
    linear = KernelPCA.fit(x, Linear(), 2).scores()
    assert max(best_threshold(linear[:, k], label) for k in range(2)) < 0.75


def test_pre_images_take_noise_away():
    clean, _ = circles(300, noise=0.0)
    x = clean + 0.08 * normal(300, 2)
    fit = KernelPCA.fit(x, RBF(0.3), 12)
    denoised = fit.pre_image(fit.scores())
    radius = denoised.norm(dim=-1)
    noisy = x.norm(dim=-1)
    off = [torch.minimum((r - 1).abs(), (r - 0.3).abs()).mean().item() for r in (radius, noisy)]
    assert off[0] < 0.5 * off[1]
    whole = KernelPCA.fit(x[:40], RBF(0.4))
    assert (whole.pre_image(whole.scores()) - x[:40]).abs().max() < 1e-3  # nothing was left out
    with pytest.raises(ValueError, match="only known for the RBF kernel"):
        KernelPCA.fit(x, Linear()).pre_image(torch.zeros(1, 2))


def test_energy_of_springs_and_laplacian_eigenmaps():
    x = normal(40, 3)
    gram, u = RBF(1.0)(x), normal(40, 2, seed=1)
    by_hand = (gram * (u[:, None] - u).square().sum(-1)).sum()
    assert torch.allclose(elastic_energy(gram, u), by_hand, rtol=1e-12, atol=1e-10)
    assert torch.allclose(elastic_energy(gram, u), 2 * torch.trace(u.mT @ laplacian(gram) @ u), atol=1e-10)
    values, top = torch.linalg.eigh(gram)
    inverse_values, bottom = torch.linalg.eigh(torch.linalg.inv(gram))
    assert inverse_values[0].item() == pytest.approx(1 / values[-1].item())
    assert abs((top[:, -1] * bottom[:, 0]).sum().item()) == pytest.approx(1, abs=1e-8)
    values, maps = laplacian_eigenmaps(gram, 3)
    degree = gram.sum(1)
    assert torch.allclose(laplacian(gram) @ maps, degree[:, None] * maps * values, atol=1e-10)
    assert torch.allclose(maps.mT @ (degree[:, None] * maps), torch.eye(3, dtype=torch.float64), atol=1e-10)
    assert (degree @ maps).abs().max() < 1e-8
    ring = torch.arange(30)  # equal degrees: then top of K is bottom of D - K
    gap = (ring[:, None] - ring).abs()
    circle = (-torch.minimum(gap, 30 - gap).double() / 3).exp()
    _, low = laplacian_eigenmaps(circle, 2)
    _, high = torch.linalg.eigh(circle)
    overlap = torch.linalg.svdvals(torch.linalg.qr(low).Q.mT @ high[:, -3:-1])
    assert torch.allclose(overlap, torch.ones(2, dtype=torch.float64), atol=1e-8)


def test_nystrom_is_exact_when_all_rows_are_landmarks_and_reads_a_stream():
    x = normal(300, 3)
    exact = KernelPCA.fit(x, RBF(1.2), 5)
    for rows in (x, iter(x.split(37))):
        near = NystromPCA.fit(rows, RBF(1.2), 5, landmarks=x)
        assert torch.allclose(near.eigenvalues, exact.eigenvalues, rtol=1e-7)
        assert torch.allclose(near.transform(x).abs(), exact.scores().abs(), atol=1e-6)
        assert near.rows == 300
    assert near.explained().sum().item() == pytest.approx(exact.explained().sum().item(), rel=1e-6)
    some = NystromPCA.fit(x, RBF(1.2), 2, landmarks=100)
    assert torch.allclose(some.eigenvalues, exact.eigenvalues[:2], rtol=0.02)
    blocks = torch.cat(list(some.transform_blocks(x.split(50))))
    assert torch.allclose(blocks, some.transform(x), atol=1e-10)


def test_bad_input_is_refused_in_one_line():
    x = normal(20, 2)
    for call, words in (
        (lambda: KernelPCA.fit(torch.ones(5, 2), RBF()), "all the same point"),
        (lambda: KernelPCA.fit(x, Linear(), 3), "only 2 components are not null"),
        (lambda: KernelPCA.fit(x, Linear(), 0), "at least 1"),
        (lambda: KernelPCA.fit(x[:0], Linear()), r"\(N, D\)"),
        (lambda: NystromPCA.fit(iter([x]), RBF(), 2), "drawn from a tensor"),
        (lambda: NystromPCA.fit(x, RBF(), 2, landmarks=50), "landmarks must be 2 to 20"),
        (lambda: NystromPCA.fit(x, Linear(), 3, landmarks=10), "not 3 components"),
        (lambda: laplacian_eigenmaps(-RBF()(x), 1), "not be negative"),
        (lambda: laplacian_eigenmaps(RBF()(x), 20), "components must be 1 to 19"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
