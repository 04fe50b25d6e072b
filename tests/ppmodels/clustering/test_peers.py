"""What goes wrong in other mixtures, found there by running them, must not go wrong here."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import BayesianGaussianMixture
from sklearn.mixture import GaussianMixture as Theirs

from inference import em, svi
from inference.pointwise import assignments
from inference.sklearn import Estimator
from ppmodels.base import Data
from ppmodels.clustering.dirichlet_process import DirichletProcessMixture
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.clustering.variational import coordinate_ascent
from ppmodels.datasets import old_faithful

FAMILIES = ("full", "tied", "diagonal", "spherical")
pytestmark = pytest.mark.usefixtures("double_precision")


def data_of(x):
    return Data(len(x), observed={"x": x})


def two_blobs():
    x = torch.randn(200, 2)
    x[100:] += torch.tensor([4.0, 1.0])
    return x


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_bound_picks_the_true_number_where_constants_left_out_do_not():
    x, ours, theirs = two_blobs(), {}, {}
    for k in (1, 2, 3, 6):
        model = DirichletProcessMixture.for_data(x, components=k, weights="finite")
        ours[k] = svi.fit(model, data_of(x), guide="blocks", num_restarts=3, num_samples=1).info["elbo"]
    for k in (2, 6):
        options = {"weight_concentration_prior_type": "dirichlet_distribution", "tol": 1e-6, "max_iter": 3000}
        theirs[k] = BayesianGaussianMixture(n_components=k, random_state=0, **options).fit(x.numpy()).lower_bound_
    assert max(ours, key=ours.get) == 2
    assert max(theirs, key=theirs.get) != 2


def test_predictions_are_a_density_where_an_average_of_logs_is_not():
    x = torch.randn(20, 1)
    grid = torch.linspace(-300, 300, 60_001)
    found = coordinate_ascent(
        DirichletProcessMixture.for_data(x, components=2, weights="finite"), data_of(x), num_restarts=2
    )
    assert float(torch.trapezoid(found.log_prob(grid[:, None]).exp(), grid)) == pytest.approx(1, abs=2e-3)
    peer = BayesianGaussianMixture(n_components=2, random_state=0).fit(x.numpy()).score_samples(grid[:, None].numpy())
    assert np.trapezoid(np.exp(peer), grid.numpy()) < 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_have_the_moments_of_the_data_in_every_family(family):
    """One library takes variances for standard deviations, and gives nothing at all where they are spherical."""
    x = torch.randn(500, 2) * 2.0 + torch.tensor([3.0, -1.0])
    face = Estimator(GaussianMixture(components=1, covariance=family), method="em", options={"num_restarts": 1})
    drawn = face.fit(x.numpy()).sample(4000)
    assert drawn.shape == (4000, 2)
    np.testing.assert_allclose(drawn.std(0), x.std(0).numpy(), rtol=0.08)
    np.testing.assert_allclose(drawn.mean(0), x.mean(0).numpy(), atol=0.15)


@pytest.mark.parametrize("family", ["spherical", "diagonal", "tied"])
def test_squares_far_apart_do_not_cancel_in_single_precision(family):
    """Two float32 rows at 9999 and 0, each a component of its own: the variance is the prior's share alone."""
    x = torch.tensor([[9999.0], [0.0]], dtype=torch.float32)
    model = GaussianMixture(components=2, dim=1, covariance=family, width=0.3, spread=1e6, scale=(1.0,))
    q = torch.eye(2)
    single, exact = (model.m_step(q.to(v), data_of(v), prior=True) for v in (x, x.double()))
    torch.testing.assert_close(single["precision"].double(), exact["precision"], rtol=1e-5, atol=0)
    assert single["precision"].dtype == torch.float32
    assert (1 / exact["precision"]).max() < 0.2  # a few of the prior's 0.3^2
    if family == "spherical":
        reg = Theirs(2, covariance_type="spherical", reg_covar=0.1).fit(x.numpy())
        assert reg.covariances_.max() > 1  # should be 0.1


def test_fewer_rows_than_columns_are_bounded_by_the_prior_and_refused_without():
    x = torch.randn(5, 10)
    model = GaussianMixture.for_data(x, components=1)
    fit = em.fit(model, data_of(x), prior=True, num_restarts=1)
    assert fit.info["converged"]
    assert all(value.isfinite().all() for value in fit.draws.values())
    assert "collapsed" in em.fit(model, data_of(x), num_restarts=1).info["message"]


def test_the_floor_on_a_covariance_is_used():
    """Equal rows: the likelihood is unbounded, the posterior is not, and its floor is the prior's scale."""
    x = torch.cat([torch.randn(30, 2), torch.full((8, 2), 3.0)])
    model = GaussianMixture.for_data(x, components=2, width=0.2)
    fit = em.fit(model, data_of(x), prior=True)
    scatter = torch.linalg.inv(_precision(fit))
    assert float(torch.linalg.eigvalsh(scatter).min()) > (0.2 * x.std(0).min()) ** 2 / 10
    assert math.isfinite(fit.info["log_likelihood"])


def _precision(fit):
    diagonal, below = fit.draws["precision"][0, 0], fit.draws["off_diagonal"][0, 0]
    factor = diagonal.sqrt().diag_embed()
    factor[:, 1, 0] = below[:, 0]
    return factor.mT @ factor


def test_it_does_not_stop_nats_below_the_top():
    for x, options, least in (
        (old_faithful().observed["x"], ("tied", 3), 10.0),
        (torch.tensor(load_iris().data), ("tied", 3), 0.3),
    ):
        family, components = options
        theirs = Theirs(components, covariance_type=family, random_state=0, reg_covar=0).fit(x.numpy())
        model = GaussianMixture.for_data(x, components=components, covariance=family)
        ours = em.fit(model, data_of(x), num_restarts=4)
        assert ours.info["log_likelihood"] > theirs.score(x.numpy()) * len(x) + least


def test_iris_clusters_are_the_species_as_mclust_has_them_whatever_their_order():
    x, y = load_iris(return_X_y=True)
    model = GaussianMixture.for_data(torch.tensor(x), components=3, covariance="tied")
    (q,) = assignments(em.fit(model, Data.of(model, x=x), num_restarts=5)).values()
    label = torch.as_tensor(np.asarray(q)).argmax(-1)
    assert adjusted_rand_score(y, label) == pytest.approx(0.941, abs=1e-3)
    assert adjusted_rand_score(y, 2 - label) == adjusted_rand_score(y, label)


def test_collapse_has_a_name_and_data_far_from_zero_do_not_crash():
    x = two_blobs()
    near = em.fit(GaussianMixture.for_data(x), data_of(x), num_restarts=2)
    far = em.fit(GaussianMixture.for_data(x + 1e4), data_of(x + 1e4), num_restarts=2)
    assert far.info["log_likelihood"] == pytest.approx(near.info["log_likelihood"], abs=1e-5)
    single = (x + 1e4).float()
    assert em.fit(GaussianMixture.for_data(single), data_of(single), num_restarts=2).info["converged"]
    assert far.draws["loc"].dtype == torch.float64
