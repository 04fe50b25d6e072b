"""K-means: Lloyd's cost falls, restarts reach the best of all partitions, and it is the limit of EM."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Reference
from sklearn.datasets import load_iris

from inference import em
from ppmodels.base import Data
from ppmodels.clustering.kmeans import KMeans


def data_of(x):
    return Data(len(x), observed={"x": x})


def cost(x, loc):
    return float(torch.cdist(x, loc).square().amin(-1).sum())


def test_the_cost_never_rises_and_is_scikit_learns():
    x = torch.tensor(load_iris().data)
    fit = em.fit(KMeans.for_data(x, components=3), data_of(x), accelerate=False, num_restarts=5)
    assert fit.trace["log_likelihood"].diff().min() > -1e-9
    theirs = Reference(3, n_init=10, random_state=0).fit(x.numpy())
    assert cost(x, fit.draws["loc"][0, 0]) == pytest.approx(theirs.inertia_, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_restarts_find_the_best_of_all_partitions(seed):
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    best = np.inf
    for sides in itertools.product([0, 1], repeat=8):
        side = torch.tensor([0, *sides]).bool()
        if side.any():
            best = min(best, sum(float((x[s] - x[s].mean(0)).square().sum()) for s in (side, ~side)))
    fit = em.fit(KMeans.for_data(x, components=2), data_of(x), num_restarts=20)
    assert cost(x, fit.draws["loc"][0, 0]) == pytest.approx(best, rel=1e-9)


def test_soft_memberships_tend_to_lloyds_as_the_width_goes():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hard = KMeans.for_data(x, components=3)
    theta, gaps = {"loc": x[:3]}, []
    wanted = hard.m_step(hard.e_step(theta, data_of(x))[0], data_of(x), False)["loc"]
    for width in (1.0, 0.3, 0.1, 0.03, 0.01):
        soft = KMeans.for_data(x, components=3, width=width, hard=False)
        gaps.append(
            float((soft.m_step(soft.e_step(theta, data_of(x))[0], data_of(x), False)["loc"] - wanted).abs().max())
        )
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-10


def test_an_empty_cluster_takes_the_row_that_is_worst_off():
    x = torch.tensor([[0.0], [1.0], [9.0]], dtype=torch.float64)
    model = KMeans.for_data(x, components=2)
    q, _ = model.e_step({"loc": torch.tensor([[1.0], [100.0]], dtype=torch.float64)}, data_of(x))
    assert q[:, 1].sum() == 0
    assert model.m_step(q, data_of(x), False)["loc"].flatten().tolist() == pytest.approx([10 / 3, 9])
    assert em.fit(model, data_of(x)).draws["loc"][0, 0].flatten().sort().values.tolist() == [0.5, 9]
