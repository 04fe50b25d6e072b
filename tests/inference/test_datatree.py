"""Groups, names, dims, labels, and the way to disk and back, from small programs and a Pyro sampler."""

import json
import os

import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from pyro.infer import HMC, MCMC, NUTS

import inference
from inference import load
from inference.base import Fit
from inference.datatree import save, to_datatree
from ppmodels import load as load_model
from ppmodels import names
from ppmodels.base import Data
from ppmodels.datasets import old_faithful

Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=torch.float64)
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=torch.float64)


def schools(data):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(data["y"])):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("y", dist.Normal(theta, data["sigma"]), obs=data["y"])


def columns(x, *, scale=1.0):
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"event_dims": ("feature",)})
    with pyro.plate("rows", len(x)):
        law = dist.Normal(loc, scale).to_event(1)
        pyro.sample("x", law, obs=x, infer={"event_dims": ("feature",)})


def flat(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0).mask(False))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def scoped(y):
    loc = pyro.sample("part/loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def sub_sampled(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y), subsample_size=3) as rows:
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y[rows])


@pytest.fixture
def fit():
    torch.manual_seed(0)
    eta, mu, tau = torch.randn(2, 10, 8).double(), torch.randn(2, 10).double(), torch.rand(2, 10).double()
    draws = {"mu": mu, "tau": tau, "eta": eta, "theta": mu[..., None] + tau[..., None] * eta}
    return Fit(
        schools,
        ({"y": Y, "sigma": SIGMA},),
        {},
        "mcmc",
        draws,
        trace={"log_density": torch.linspace(-5, 0, 7).double()},
        stats={
            "diverging": torch.zeros(2, 10, dtype=torch.bool),
            "tree_depth": torch.ones(2, 10, dtype=torch.long),
        },
        info={"seed": 3, "seconds": 1.5, "num_warmup": 20, "converged": True, "name": "schools"},
        warmup_draws={"mu": torch.randn(2, 20)},
        warmup_stats={"step_size": torch.rand(2, 20)},
        state={"step_size": 0.1, "position": torch.randn(2, 10), "rng": [torch.get_rng_state(), None]},
    )


def test_groups_have_the_schema_s_names_and_the_plates_dims(fit):
    tree = to_datatree(fit, prior=50)
    assert set(tree.children) == {
        "posterior", "sample_stats", "log_likelihood", "log_prior", "prior", "prior_predictive",
        "posterior_predictive", "observed_data", "constant_data", "fit",
    }  # fmt: skip
    assert tree["posterior"]["eta"].dims == ("chain", "draw", "schools")
    assert tree["posterior"]["theta"].dims == ("chain", "draw", "schools")
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "schools")
    assert tree["prior"]["eta"].shape == (1, 50, 8)
    assert tree["prior"]["theta"].dims == ("chain", "draw", "schools")
    assert tree["prior_predictive"]["y"].shape == (1, 50, 8)
    assert tree["posterior_predictive"]["y"].shape == (2, 10, 8)
    np.testing.assert_array_equal(tree["observed_data"]["y"], Y)
    np.testing.assert_array_equal(tree["constant_data"]["sigma"], SIGMA)
    assert "y" not in tree["constant_data"]
    assert tree["fit"]["log_density"].dims == ("step",)
    assert tree["sample_stats"]["diverging"].dtype == bool
    expected = dist.Normal(fit.draws["theta"], SIGMA).log_prob(Y)
    np.testing.assert_allclose(tree["log_likelihood"]["y"], expected, rtol=1e-12)


def test_attributes_say_how_the_draws_were_made(fit):
    tree = to_datatree(fit, prior=0)
    about = tree["posterior"].attrs
    assert about["inference_method"] == "mcmc"
    assert about["sampling_time"] == 1.5
    assert about["tuning_steps"] == 20
    assert about["creation_library"] == "ppmodels"
    assert {"created_at", "creation_library_version", "inference_library"} <= set(about)
    assert json.loads(tree.attrs["info"])["seed"] == 3
    assert json.loads(tree.attrs["left_out"]) == {}
    assert "prior" not in tree.children


def test_warm_up_comes_on_request(fit):
    assert "warmup_posterior" not in to_datatree(fit, prior=0).children
    tree = to_datatree(fit, prior=0, save_warmup=True)
    assert tree["warmup_posterior"]["mu"].shape == (2, 20)
    assert tree["warmup_sample_stats"]["step_size"].shape == (2, 20)


def test_columns_are_labelled():
    draws = {"loc": torch.randn(1, 30, 2)}
    fit = Fit(columns, (torch.randn(5, 2),), {"scale": 2.0}, "svi", draws)
    tree = to_datatree(fit, prior=10, coords={"feature": ["eruptions", "waiting"]})
    assert tree["posterior"]["loc"].dims == ("chain", "draw", "feature")
    assert list(tree["posterior"]["feature"].values) == ["eruptions", "waiting"]
    assert tree["observed_data"]["x"].dims == ("rows", "feature")
    assert tree["log_likelihood"]["x"].dims == ("chain", "draw", "rows")
    renamed = to_datatree(fit, prior=0, dims={"loc": ["feature"]})
    assert renamed["posterior"]["loc"].dims == ("chain", "draw", "feature")
    with pytest.raises(ValueError, match="1 labels for 'feature', which has 2"):
        to_datatree(fit, coords={"feature": ["eruptions"]})


def test_a_plate_named_as_a_site_does_not_clash():
    def program(y):
        with pyro.plate("y", len(y)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("chain", 3):
            pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("y_obs", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1), obs=y)
        pyro.sample("y", dist.Normal(0.0, 1.0))

    draws = {"z": torch.randn(1, 4, 5), "w": torch.randn(1, 4, 3), "y": torch.randn(1, 4)}
    tree = to_datatree(Fit(program, (torch.randn(5),), {}, "svi", draws))
    assert tree["posterior"]["z"].dims == ("chain", "draw", "z_dim_0")
    assert tree["posterior"]["w"].dims == ("chain", "draw", "w_dim_0")


def test_an_improper_prior_is_left_out_with_the_reason(caplog):
    caplog.set_level("INFO", logger="inference")
    draws = {"loc": torch.randn(1, 30)}
    tree = to_datatree(Fit(flat, (torch.randn(5),), {}, "svi", draws))
    assert "prior" not in tree.children
    assert "'loc'" in json.loads(tree.attrs["left_out"])["prior"]
    assert "'loc'" in caplog.text
    assert tree["posterior_predictive"]["y"].shape == (1, 30, 5)


def test_sub_sampled_rows_are_all_there():
    y = torch.randn(10)
    tree = to_datatree(Fit(sub_sampled, (y,), {}, "svi", {"loc": torch.randn(1, 6)}), prior=5)
    np.testing.assert_array_equal(tree["observed_data"]["y"], y)
    assert tree["observed_data"]["y"].dims == ("rows",)
    assert tree["log_likelihood"]["y"].shape == (1, 6, 10)
    assert tree["posterior_predictive"]["y"].shape == (1, 6, 10)
    assert tree["prior_predictive"]["y"].shape == (1, 5, 10)
    assert tree["observed_data"].sizes == {"rows": 10}


def test_a_point_has_one_draw_and_its_surroundings_the_log_likelihood():
    y = torch.randn(5, dtype=torch.float64)
    tree = to_datatree(Fit(flat, (y,), {}, "mode", {"loc": y.mean()[None, None]}), prior=0)
    assert tree["posterior"]["loc"].shape == (1, 1)
    assert tree["log_likelihood"]["y"].shape == tree["posterior_predictive"]["y"].shape == (1, 1000, 5)
    assert "draws of N(point" in tree["log_likelihood"].attrs["drawn"]
    level = 0.5 * (2 * tree["log_likelihood"]["y"].values).sum(-1)  # log N(loc; mean, 1/5) but for a constant
    distance = (level.max() - level) * 2  # 5 (loc - mean)^2, chi-squared with one degree of freedom
    assert abs(distance.mean() - 1) < 0.15


def test_a_point_without_curvature_stays_a_point():
    def ridge(y):
        a, b = (pyro.sample(n, dist.Normal(0.0, 1.0).mask(False)) for n in "ab")
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    zero = torch.zeros(1, 1, dtype=torch.float64)
    tree = to_datatree(Fit(ridge, (torch.randn(5).double(),), {}, "mode", {"a": zero, "b": zero}), prior=0)
    assert tree["log_likelihood"]["y"].shape == (1, 1, 5)
    assert "drawn" not in tree["log_likelihood"].attrs


def test_a_large_group_is_thinned_along_every_chain_unless_asked_for(monkeypatch):
    monkeypatch.setattr("inference.datatree.SMALL", 4000)
    monkeypatch.setattr("inference.datatree.ENOUGH", 600)
    y, draws = torch.randn(5).double(), {"loc": torch.randn(4, 500).double()}
    fit = Fit(flat, (y,), {}, "mcmc", draws)
    tree, whole = to_datatree(fit, prior=0), to_datatree(fit, prior=0, log_likelihood=True, posterior_predictive=True)
    assert whole["log_likelihood"]["y"].shape == whole["posterior_predictive"]["y"].shape == (4, 500, 5)
    assert "thinned" not in whole["log_likelihood"].attrs
    for group in ("log_likelihood", "posterior_predictive"):
        assert tree[group]["y"].shape == (4, 167, 5)  # 4000 / 5 numbers a draw are 800 draws of 2000: every third
        assert tree[group].attrs["thinned"] == f"one draw in 3 of each chain; {group}=True keeps all"
    some = whole["log_likelihood"]["y"].sel(draw=tree["log_likelihood"]["draw"])
    np.testing.assert_array_equal(tree["log_likelihood"]["y"], some)
    assert tree["posterior"]["loc"].shape == (4, 500)
    monkeypatch.setattr("inference.datatree.LARGE", 2000)
    left_out = json.loads(to_datatree(fit, prior=0).attrs["left_out"])
    assert left_out.keys() == {"log_likelihood", "posterior_predictive"}
    assert "ask for it with log_likelihood=True" in left_out["log_likelihood"]


def test_an_axis_that_arviz_plots_needs_has_another_name():
    def program(x):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"event_dims": ("column",)})
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x, infer={"event_dims": ("column",)})

    tree = to_datatree(
        Fit(program, (torch.randn(3, 2),), {}, "svi", {"loc": torch.randn(1, 9, 2)}), coords={"column": "ab"}
    )
    assert tree["posterior"]["loc"].dims == ("chain", "draw", "column_dim")
    assert list(tree["observed_data"]["column_dim"].values) == ["a", "b"]


LONG = [pytest.param(method, marks=pytest.mark.slow) for method in ("mode", "laplace", "svi", "mcmc")]


@pytest.mark.parametrize("method", ["em", *LONG])
def test_arviz_leaves_one_out_after_every_method(method):
    """Of a mixture, whose assignments are summed out; all methods agree on how well it predicts."""
    data = old_faithful()
    model = load_model("gmm").for_data(data.observed["x"], components=2, ordered=True)
    options = {
        "mcmc": {"num_chains": 16, "num_samples": 100, "compile": False},
        "svi": {"guide": "full-rank", "compile": False},
    }
    fit = inference.fit(method, model, data, seed=1, **options.get(method, {}))
    loo = arviz_stats.loo(to_datatree(fit, prior=0, posterior_predictive=False), pointwise=True)
    assert loo.n_data_points == 272
    assert float(loo.pareto_k.max()) < 0.7
    assert abs(loo.elpd - -1141.7) < 1.5
    assert 8 < loo.p < 13


def test_loo_works_and_agrees_with_the_exact_value():
    torch.manual_seed(1)
    y = torch.randn(40, dtype=torch.float64) + 0.5

    def normal(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    def posterior(y):
        precision = 0.01 + len(y)
        return dist.Normal(y.sum() / precision, precision**-0.5)

    draws = {"loc": posterior(y).sample((4, 1000))}
    elpd = arviz_stats.loo(to_datatree(Fit(normal, (y,), {}, "exact", draws), prior=0)).elpd
    exact = 0.0
    for i in range(len(y)):
        q = posterior(torch.cat([y[:i], y[i + 1 :]]))
        exact += float(dist.Normal(q.mean, (1 + q.variance) ** 0.5).log_prob(y[i]))
    assert abs(elpd - exact) < 0.05


@pytest.fixture(scope="module")
def mcmc():
    pyro.set_rng_seed(0)
    sampler = MCMC(NUTS(schools), num_samples=30, warmup_steps=20, disable_progbar=True)
    sampler.run({"y": Y.float(), "sigma": SIGMA.float()})
    return sampler


def test_a_finished_pyro_sampler_is_taken(mcmc):
    mcmc._diagnostics[0]["divergences"] = [2, 5]
    tree = to_datatree(mcmc, prior=20)
    assert tree["posterior"]["eta"].dims == ("chain", "draw", "schools")
    np.testing.assert_array_equal(tree["posterior"]["mu"][0], mcmc.get_samples()["mu"])
    assert np.flatnonzero(tree["sample_stats"]["diverging"][0]).tolist() == [2, 5]
    about = tree["posterior"].attrs
    assert about["inference_library"] == "pyro-ppl"
    assert 0 < json.loads(about["info"])["acceptance_rate"][0] <= 1
    assert tree["log_likelihood"]["y"].shape == (1, 30, 8)
    mu, tau, eta = (mcmc.get_samples()[k] for k in ("mu", "tau", "eta"))
    expected = dist.Normal(mu[:, None] + tau[:, None] * eta, SIGMA.float()).log_prob(Y.float())
    np.testing.assert_allclose(tree["log_likelihood"]["y"][0], expected, rtol=1e-4)
    np.testing.assert_array_equal(tree["observed_data"]["y"], Y.float())


def test_a_sampler_of_a_bare_potential_says_what_it_cannot_give():
    def potential(z):
        return 0.5 * (z["x"] ** 2).sum()

    kernel = HMC(potential_fn=potential, step_size=0.5, adapt_step_size=False, num_steps=3)
    sampler = MCMC(kernel, 10, 0, initial_params={"x": torch.zeros(2)}, disable_progbar=True)
    with pytest.raises(ValueError, match="has no draws yet"):
        to_datatree(sampler)
    sampler.run()
    tree = to_datatree(sampler)
    assert tree["posterior"]["x"].shape == (1, 10, 2)
    assert "potential function" in json.loads(tree.attrs["left_out"])["observed_data"]


def assert_same(one, other):
    for name in ("draws", "trace", "stats", "warmup_draws", "warmup_stats"):
        before, after = getattr(one, name), getattr(other, name)
        assert list(before) == list(after)
        for k in before:
            assert before[k].dtype == after[k].dtype
            assert torch.equal(before[k], after[k])
    assert one.info == other.info
    assert one.method == other.method


def test_a_saved_fit_comes_back_exactly(fit, tmp_path):
    path = save(fit, tmp_path / "fit.nc", prior=10)
    assert os.listdir(tmp_path) == ["fit.nc"]
    again = load(path, model=schools)
    assert_same(fit, again)
    assert again.model is schools
    assert torch.equal(again.args[0]["sigma"], SIGMA)
    assert again.state["step_size"] == 0.1
    assert torch.equal(again.state["position"], fit.state["position"])
    assert torch.equal(again.state["rng"][0], fit.state["rng"][0])
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert tree["log_likelihood"]["y"].shape == (2, 10, 8)
    with pytest.raises(ValueError, match="fit of schools, which must be given"):
        load(path)


def test_odd_names_and_dtypes_survive(tmp_path):
    draws = {
        "part/loc": torch.randn(1, 4).to(torch.bfloat16),
        "count": torch.arange(4)[None],
        "yes": torch.tensor([[True, False, True, True]]),
    }
    fit = Fit(scoped, (torch.randn(3),), {}, "svi", draws, info={"khat": float("inf"), "words": ["a", None]})
    assert_same(fit, load(save(fit, tmp_path / "f.nc"), model=scoped))


def test_arguments_that_cannot_be_stored_are_asked_for(tmp_path):
    def program(callback, y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(callback(loc), 1.0), obs=y)

    args = (lambda v: 2 * v, torch.randn(3))
    path = save(Fit(program, args, {}, "svi", {"loc": torch.randn(1, 4)}), tmp_path / "f.nc")
    with pytest.raises(ValueError, match="does not hold the program's arguments"):
        load(path, model=program)
    assert load(path, model=program, args=args).args is not None


def test_nothing_half_written_stays(fit, tmp_path):
    (tmp_path / "fit.nc").write_text("before")
    broken = Fit(schools, fit.args, {}, "mcmc", fit.draws, state={"handle": object()})
    with pytest.raises(TypeError, match="state cannot be stored"):
        save(broken, tmp_path / "fit.nc")
    assert (tmp_path / "fit.nc").read_text() == "before"
    assert os.listdir(tmp_path) == ["fit.nc"]
    with pytest.raises(FileNotFoundError, match="no file"):
        load(tmp_path / "none.nc")
    xr.Dataset({"a": ("i", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"not one that Fit\.save wrote"):
        load(tmp_path / "other.nc")


@pytest.mark.skipif("gmm" not in names(), reason="the mixture is not there")
def test_a_model_of_the_collection_is_made_again(tmp_path):
    from inference.predict import simulate

    model = load_model("gmm")(components=2, dim=2)
    data, latents = simulate(model, 20, seed=0)
    data = Data(data.rows, data.given, data.observed, coords={"feature": ("eruptions", "waiting")})
    latents.pop("z", None)
    draws = {k: v.expand(1, 3, *v.shape).clone() for k, v in latents.items()}
    fit = Fit(model, (data,), {}, "em", draws)
    again = load(save(fit, tmp_path / "gmm.nc", prior=10))
    assert again.model == model
    assert_same(fit, again)
    assert again.data is not None
    assert again.data.coords == data.coords
    assert torch.equal(again.data.observed["x"], data.observed["x"])
    tree = to_datatree(again, prior=10)
    assert tree["log_likelihood"]["x"].shape == (1, 3, 20)
    assert json.loads(tree.attrs["left_out"]) == {}
