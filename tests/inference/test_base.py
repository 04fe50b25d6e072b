"""The clean slate of a fit, the density it scores, and the answer's own few words."""

import dataclasses
import random
from contextlib import nullcontext

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.poutine import runtime

import inference
from inference import em
from inference.base import Fit, Unsupported, fresh, joint
from inference.pointwise import pointwise
from ppmodels.base import Data
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.regression.linear import LinearRegression

F32, F64 = torch.float32, torch.float64


def regression(rows=5, dtype=F64):
    x = torch.linspace(-1, 1, rows, dtype=dtype)
    return LinearRegression(), Data(rows, {"x": x[:, None]}, {"y": 2 * x})


def world():
    store = {name: value.tolist() for name, value in pyro.get_param_store().items()}
    numpy = np.random.get_state()
    states = torch.get_rng_state().tolist(), numpy[1].tolist(), numpy[2:], random.getstate()
    return store, list(runtime._PYRO_STACK), states, torch.get_default_dtype(), torch.get_default_device()


@pytest.fixture
def _messy():
    """Somebody else's world around a fit: parameters, an open handler, generators in use."""
    pyro.clear_param_store()
    pyro.param("theirs", torch.arange(3.0))
    torch.manual_seed(5)
    with poutine.trace():
        yield
    pyro.clear_param_store()


def disturb():
    pyro.param("ours", torch.zeros(2))
    torch.rand(3)
    np.random.rand()
    random.random()
    torch.set_default_dtype(torch.float16)
    poutine.block().__enter__()


@pytest.mark.usefixtures("_messy")
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_afterwards_all_is_as_before(error):
    model, data = regression()

    def run():
        with fresh(model, (data,)):
            disturb()
            if error is not None:
                raise error

    before = world()
    with pytest.raises(error) if error else nullcontext():
        run()
    assert world() == before


@pytest.mark.usefixtures("_messy")
def test_one_slate_within_another_returns_to_the_outer_one():
    with fresh(None, (torch.ones(1, dtype=F32),), seed=1):
        pyro.param("outer", torch.ones(1))
        before = world()
        with fresh(None, (torch.ones(1, dtype=F64),), seed=2):
            assert not list(pyro.get_param_store())
            disturb()
        assert world() == before
    assert list(pyro.get_param_store()) == ["theirs"]


@pytest.mark.usefixtures("_messy")
def test_inside_the_store_is_empty_and_generators_are_seeded():
    drawn = []
    for seed in (3, 3, 4, 3 + 2**32):
        with fresh(None, seed=seed):
            assert not list(pyro.get_param_store())
            drawn.append((float(torch.rand(())), float(np.random.rand()), random.random()))
    assert drawn[0] == drawn[1] == drawn[3]
    assert not set(drawn[0]) & set(drawn[2])


def test_the_model_is_a_copy():
    net = torch.nn.Linear(1, 1)
    with fresh(net) as own, torch.no_grad():
        own.weight.add_(1)
        assert own is not net
    assert not torch.equal(own.weight, net.weight)


@pytest.mark.parametrize(
    ("args", "dtype"),
    [
        ((), F64),
        ((torch.arange(3),), F64),
        ((torch.zeros(2, dtype=F32),), F32),
        (([torch.zeros(2, dtype=F32)], {"a": torch.zeros(1, dtype=torch.int64)}), F32),
        ((torch.zeros(2, dtype=F32), torch.zeros(2, dtype=F64)), F64),
        ((regression(dtype=F32)[1],), F32),
        ((regression(dtype=F64)[1],), F64),
    ],
)
def test_dtype_is_that_of_the_data(args, dtype):
    with fresh(None, args):
        assert torch.get_default_dtype() == dtype
        assert torch.zeros(1).dtype == dtype


def test_dtype_is_that_of_named_arguments_too():
    with fresh(None, (), {"y": torch.zeros(2, dtype=F32)}):
        assert torch.get_default_dtype() == F32


def test_device_is_that_of_the_data():
    with fresh(None, (torch.zeros(2, device="meta"),)):
        assert torch.zeros(1).device.type == "meta"
    assert torch.zeros(1).device.type == "cpu"


def test_joint_scores_latents_and_observations_together():
    model, data = regression()
    coef = torch.tensor([0.5, -1.0], dtype=F64)
    program = pyro.condition(joint(model, (data,), {}), data={"coef": coef})
    trace = poutine.trace(program).get_trace(data)
    prior = dist.Normal(0.0, model.spread).log_prob(coef).sum()
    mean = coef[0] + coef[1] * data.given["x"][:, 0]
    likelihood = dist.Normal(mean, model.noise).log_prob(data.observed["y"]).sum()
    torch.testing.assert_close(trace.log_prob_sum(), prior + likelihood)
    assert trace.nodes["y"]["is_observed"]


def test_a_plain_program_is_its_own_joint():
    def program(x):
        return x

    assert joint(program, (1,), {"option": 2}) is program


def test_equal_models_share_one_key_and_others_do_not():
    _, data = regression()
    keys = [joint(LinearRegression(noise=s), (data,), {}).key for s in (1.0, 1.0, 2.0)]
    assert keys[0] == keys[1] != keys[2]


def test_what_is_no_data_set_is_refused():
    model, data = regression()
    for args in ((), (data.observed["y"],), (data, data)):
        with pytest.raises(TypeError, match=r"LinearRegression is fitted to one `Data`; make it with Data\.of"):
            joint(model, args, {})
    with pytest.raises(TypeError, match="no option is called draws, steps"):
        joint(model, (data,), {"draws": 1, "steps": 2})
    with pytest.raises(ValueError, match="the data hold no y, which LinearRegression observes"):
        joint(model, (Data(5, data.given),), {})


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("y", lambda y: y[:, None], r"y must be \(rows,\); it is \(5, 1\)"),
        ("y", lambda y: y.where(torch.arange(5) != 3, torch.nan), "y is nan in row 3; drop or fill such rows"),
        ("x", lambda x: x.where(torch.arange(5)[:, None] != 2, torch.inf), "x is inf in row 2, column 0; drop"),
        ("x", lambda x: x.repeat(1, 2), r"x must be \(rows, 1\); it is \(5, 2\)"),
    ],
)
@pytest.mark.parametrize("method", ["exact", "laplace", "svi", "mcmc"])
def test_bad_rows_are_named_in_one_line_by_every_back_end(method, name, change, said):
    model, data = regression()
    arrays = {**data.given, **data.observed}
    bad = Data.of(model, **{**arrays, name: change(arrays[name])})
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=f"^{said}[^\n]*$"):
        inference.fit(method, model, bad)
    assert torch.equal(torch.get_rng_state(), before)


def test_looking_at_the_data_changes_no_draw():
    model, data = regression()
    with fresh(model, (data,), seed=3):
        expected = torch.rand(3)
    with fresh(model, (data,), seed=3) as own:
        joint(own, (data,), {})
        assert torch.equal(torch.rand(3), expected)


def point(method="mode", **fields):
    model, data = regression()
    return Fit(model, (data,), {}, method, {"coef": torch.zeros(1, 1, 2)}, **fields)


def test_a_fit_shows_itself_in_one_line_and_is_frozen():
    fit = point(info={"name": "linear"})
    assert repr(fit) == "Fit(linear, 'mode', coef (1, 1, 2))"
    with pytest.raises(AttributeError):
        fit.method = "em"


def test_a_fit_is_looked_at_on_rows_that_nothing_could_be_learned_from():
    model = GaussianMixture(components=2, dim=1)
    data = Data.of(model, x=torch.tensor([-3.0, -2.0, -2.5, 2.0, 3.0, 2.5], dtype=F64)[:, None])
    fit = em.fit(model, data)
    one = dataclasses.replace(fit, args=(data.batch(torch.tensor([4])),))  # one row, fewer than components
    with pytest.raises(ValueError, match="rows"):
        em.fit(model, one.args[0])
    of_one, of_all = (pointwise(each).log_likelihood["x"] for each in (one, fit))
    torch.testing.assert_close(of_one, of_all[..., 4:5])


def test_a_fit_knows_its_data_set_if_it_has_one():
    fit = point()
    assert fit.data is fit.args[0]
    assert Fit(lambda x: x, (torch.ones(2),), {}, "mode", {}).data is None
    assert Fit(lambda: None, (), {}, "mode", {}).data is None


def test_only_chains_can_be_extended():
    with pytest.raises(Unsupported, match="mode has nothing to extend"):
        point().extend(10)
    with pytest.raises(Unsupported, match="no sampler state"):
        point("mcmc").extend(10)


def test_back_ends_are_at_hand_after_one_import():
    assert all(getattr(inference, name).fit for name in inference.methods())
    with pytest.raises(AttributeError, match="no attribute 'gibbs'; back ends: bayes_by_backprop"):
        _ = inference.gibbs


@pytest.fixture
def cores():
    """Set how many threads torch has, as a machine with so many cores would."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("method", ["em", "exact", "laplace", "mcmc", "mode", "pathfinder", "svi"])
def test_the_number_of_cores_changes_no_draw(method, cores):
    rows = 33_000  # more than torch sums in one thread where it has several
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 1, dtype=F64, generator=generator)
    if method == "exact":
        model, data = LinearRegression(), Data(rows, {"x": x}, {"y": 0.3 * x[:, 0]})
    else:
        model = GaussianMixture(components=2, dim=1)
        data = Data.of(model, x=x + 4 * (torch.arange(rows) % 3 == 0)[:, None])
    options = {
        "em": {"num_restarts": 2, "num_steps": 20},
        "laplace": {"num_samples": 50},
        "mcmc": {"num_chains": 4, "num_warmup": 5, "num_samples": 3, "compile": False, "init": "uniform"},
        "mode": {"num_restarts": 1},
        "pathfinder": {"num_paths": 2, "num_samples": 20, "num_elbo_draws": 5},
        "svi": {"num_steps": 5, "num_restarts": 1, "compile": False},
    }.get(method, {})
    found = []
    for number in (1, 3):
        cores(number)
        found.append(inference.fit(method, model, data, seed=4, **options))
        assert torch.get_num_threads() == number
    for name, draws in found[0].draws.items():
        assert torch.equal(draws, found[1].draws[name]), name


def test_more_threads_are_used_when_asked_for(cores):
    cores(1)
    seen = []

    def program():
        seen.append(torch.get_num_threads())

    for number in (3, 1):
        with inference.threads(number), fresh(program):
            program()
        assert torch.get_num_threads() == 1
    assert seen == [3, 1]
