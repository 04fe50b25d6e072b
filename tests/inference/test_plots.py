"""Pictures are drawn, show what they should, name their axes, and leave matplotlib as it was."""

import warnings

import arviz_plots
import arviz_stats
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import inference
from inference import plots
from inference.base import Fit, Unsupported
from inference.check import simulation_based_calibration
from inference.predict import simulate
from ppmodels import load
from ppmodels.base import Data
from ppmodels.datasets import old_faithful
from tests.inference.programs import normal


def counts(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


@pytest.fixture
def fit():
    torch.manual_seed(0)
    y, shape = torch.randn(40), (4, 100)
    return Fit(
        normal, (y,), {}, "mcmc", {"loc": torch.randn(shape) * 0.2},
        trace={"log_density": torch.linspace(-50, -3, 30)}, stats={"energy": torch.randn(shape)},
    )  # fmt: skip


@pytest.fixture
def mixture():
    model = load("gmm")(components=2, dim=2, scale=(3.0,))
    data, latents = simulate(model, 60, seed=1)
    units = {"eruptions": "min", "waiting": "min"}
    data = Data(data.rows, {}, data.observed, coords={"feature": tuple(units)}, units=units)
    keep = {k: v for k, v in latents.items() if k not in ("z", "covariance")}
    draws = {k: v + 0.01 * torch.rand(1, 20, *v.shape) for k, v in keep.items()}
    draws["weights"] = draws["weights"] / draws["weights"].sum(-1, keepdim=True)
    return Fit(model, (data,), {}, "laplace", draws)


@pytest.fixture(autouse=True)
def _as_before():
    before = dict(plt.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def visible(figure):
    return [axis for axis in figure.axes if axis.get_visible()]


def test_trace_has_a_density_and_a_course_of_each_chain(fit, tmp_path):
    figure = plots.trace(fit)
    density, course = visible(figure)
    assert len(density.lines) == len(course.lines) == 4
    np.testing.assert_allclose(course.lines[2].get_ydata(), fit.draws["loc"][2])
    assert density.get_xlabel() == "loc"
    assert course.get_xlabel() == "draw"
    figure.savefig(tmp_path / "trace.png")
    assert (tmp_path / "trace.png").stat().st_size > 5000


def test_ranks_of_one_chain_are_refused(fit):
    assert len(visible(plots.ranks(fit))[0].lines) == 4
    one = Fit(normal, fit.args, {}, "svi", {"loc": torch.randn(1, 50)})
    with pytest.raises(Unsupported, match="ranks compare chains"):
        plots.ranks(one)
    with pytest.raises(Unsupported, match="one draw"):
        plots.trace(Fit(normal, fit.args, {}, "mode", {"loc": torch.randn(1, 1)}))


def test_ranks_of_a_shifted_chain_leave_the_band(fit):
    def outside(draws):
        axis = visible(plots.ranks(Fit(normal, fit.args, {}, "mcmc", {"loc": draws})))[0]
        (band,) = (path.vertices for path in axis.collections[0].get_paths())
        high = np.abs(band[:, 1]).max()
        return [float(np.abs(line.get_ydata()).max()) > high for line in axis.lines]

    torch.manual_seed(1)
    draws = torch.randn(4, 200)
    assert outside(draws) == [False] * 4
    assert outside(draws + torch.tensor([0.0, 0.0, 0.0, 0.7])[:, None])[3]


def test_effective_sizes_grow_with_draws(fit):
    run = Fit(normal, fit.args, {}, "mcmc", fit.draws, info={"num_warmup": 10})
    (axis,) = visible(plots.evolution(run))
    assert axis.get_title() == "loc"
    bulk = axis.lines[0].get_ydata()
    assert bulk[-1] > 200
    assert bulk[-1] > 3 * bulk[0]
    with pytest.raises(Unsupported, match="no chain of 100 draws"):
        plots.evolution(fit)


ARVIZ = {
    "plot_trace": {}, "plot_trace_dist": {}, "plot_rank": {}, "plot_rank_dist": {}, "plot_forest": {},
    "plot_ridge": {}, "plot_dist": {}, "plot_pair": {}, "plot_autocorr": {}, "plot_ess": {}, "plot_mcse": {},
    "plot_ess_evolution": {}, "plot_prior_posterior": {}, "plot_energy": {}, "plot_ppc_dist": {"num_samples": 20},
}  # fmt: skip
CHAINS_ONLY = {"plot_rank", "plot_rank_dist", "plot_energy"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["em", "mode", "laplace", "svi", "mcmc"])
def test_arviz_plots_takes_the_tree_of_every_method(method):
    """Names of axes, labels, groups: what a function of arviz_plots looks up is there."""
    data = old_faithful()
    model = load("gmm").for_data(data.observed["x"], components=2, ordered=True)
    options = {"svi": {"guide": "full-rank"}, "mcmc": {"num_chains": 4, "num_samples": 100}}.get(method, {})
    tree = inference.fit(method, model, data, seed=1, **options).to_datatree(prior=100)
    point = method in ("em", "mode")
    for name, settings in ARVIZ.items():
        if name in CHAINS_ONLY and method != "mcmc":
            continue
        if point and name not in ("plot_forest", "plot_ppc_dist", "plot_trace"):
            continue  # one draw has neither a density nor an effective size
        chosen = {} if name in ("plot_energy", "plot_ppc_dist") else {"var_names": ["weights", "loc"]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arviz_plots itself, on layouts and deprecations
            getattr(arviz_plots, name)(tree, backend="none", **chosen, **settings)
    assert arviz_stats.loo(tree).n_data_points == 272


def test_the_objective_is_drawn_for_the_fits_that_have_one(fit):
    figure = plots.objective([fit, Fit(normal, fit.args, {}, "exact", fit.draws)])
    (axis,) = visible(figure)
    assert axis.get_title() == "mcmc"
    assert axis.get_xlabel() == "step"
    with pytest.raises(Unsupported, match="no fit has a trace"):
        plots.objective([Fit(normal, fit.args, {}, "exact", fit.draws)])


def test_energy_needs_energies(fit):
    bfmi, densities = visible(plots.energy(fit))
    assert len(bfmi.collections[0].get_offsets()) == 4
    assert len(densities.lines) == 2
    with pytest.raises(Unsupported, match="keeps no energy"):
        plots.energy(Fit(normal, fit.args, {}, "svi", fit.draws))


def test_the_predictive_check_has_a_panel_a_column(mixture, fit):
    first, second = visible(plots.predictive(mixture, num_datasets=10))
    assert first.get_xlabel() == "eruptions (min)"
    assert second.get_xlabel() == "waiting (min)"
    assert len(first.lines) == 11
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["predicted", "observed"]
    assert len(visible(plots.predictive(fit))) == 1


def test_counts_are_shown_as_shares():
    y = torch.tensor([0.0, 1.0, 1.0, 3.0])
    (axis,) = visible(plots.predictive(Fit(counts, (y,), {}, "svi", {"rate": torch.full((1, 20), 1.3)})))
    assert axis.get_ylabel() == "share"
    np.testing.assert_allclose(axis.lines[-1].get_ydata(), [0.25, 0.5, 0.25])


def test_compare_has_a_panel_a_quantity_and_a_row_a_fit(fit):
    point = Fit(normal, fit.args, {}, "mode", {"loc": torch.zeros(1, 1)})
    (axis,) = visible(plots.compare([fit, point]))
    assert axis.get_title() == "loc"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["mcmc", "mode"]


def test_ellipses_show_rows_components_and_spread(mixture):
    figure = plots.ellipses(mixture, draws=12)
    (axis,) = figure.axes
    assert axis.get_xlabel() == "eruptions (min)"
    assert axis.get_ylabel() == "waiting (min)"
    assert len(axis.collections[0].get_offsets()) == 60
    assert len(axis.lines) == 2 * (12 + 2 + 1)
    assert "of the rows" in axis.get_legend().get_texts()[0].get_text()
    with pytest.raises(Unsupported, match="no site spread to draw"):
        plots.ellipses(mixture, covariance="spread")
    with pytest.raises(Unsupported, match="ellipses need a model of the collection"):
        plots.ellipses(Fit(normal, (torch.randn(3),), {}, "svi", {"loc": torch.randn(1, 3)}))


def test_calibration_shows_a_histogram_a_quantity():
    def prior(program, y, seed=0):
        torch.manual_seed(seed)
        return Fit(program, (y,), {}, "prior", {"loc": torch.randn(1, 19)})

    result = simulation_based_calibration(normal, prior, torch.zeros(2), num_datasets=40, num_draws=19)
    (axis,) = visible(plots.calibration(result))
    assert sum(patch.get_height() for patch in axis.containers[0]) == 40
