"""Every model against the contract, and every model against every back end.

A new model or back end is found by its file and held to all of this without another line.
"""

import dataclasses
import importlib
import inspect
import random
import re

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.poutine import runtime

import inference
import ppmodels
from inference.base import fresh, joint
from inference.predict import simulate
from ppmodels import Data, Model

SMALL = {  # so that a pair takes about a second: enough to show shapes, states and the way up, not to converge
    "num_samples": 50,
    "num_warmup": 20,
    "num_chains": 4,
    "num_steps": 100,
    "num_restarts": 2,
    "num_paths": 4,
    "compile": False,
}
ROWS = 40
BACK_ENDS = {method: importlib.import_module(f"inference.{method}") for method in inference.methods()}

EVERY_MODEL = pytest.mark.parametrize("name", ppmodels.names())
EVERY_METHOD = pytest.mark.parametrize("method", BACK_ENDS)


def model_of(name):
    return ppmodels.load(name)()


def resized(name):
    """The model with its counts apart from one another, so that no two letters are one size by chance."""
    model = model_of(name)
    counts = [f.name for f in dataclasses.fields(model) if type(f.default) is int]
    return dataclasses.replace(model, **{field: getattr(model, field) + i for i, field in enumerate(counts, 1)})


def trace_of(model, data, truth):
    """The trace at these latents and observations; networks have the same weights every time."""
    with fresh(model, (data,)) as own, torch.no_grad():
        trace = poutine.trace(pyro.condition(own.model, data={**truth, **data.observed})).get_trace(data)
        trace.compute_log_prob()
        return trace


def log_density(model, data, truth):
    return trace_of(model, data, truth).log_prob_sum()


def spoken(site):
    """How a docstring names a site: `x_3` is one of `x_t`."""
    return re.sub(r"_[0-9]+$", "_t", site)


@EVERY_MODEL
def test_a_model_is_a_frozen_dataclass_that_can_be_made_without_arguments(name):
    cls = ppmodels.load(name)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert all(f.default is not dataclasses.MISSING for f in dataclasses.fields(cls))
    assert isinstance(cls(), Model)
    assert cls.observed
    assert isinstance(cls.observed, tuple)
    assert cls() == cls()
    assert hash(cls()) == hash(cls())
    assert eval(repr(cls()), {cls.__name__: cls}) == cls()


@EVERY_MODEL
def test_the_docstring_names_every_site_and_the_source(name):
    model = model_of(name)
    doc = inspect.getdoc(type(model))
    assert re.match(r"[A-Z][^\n]*\.\n\n", doc), "the first line is one sentence"
    assert ".. math::" in doc
    data, truth = simulate(model, 5)
    wanted = {"Observed:": data.observed, "Latents:": truth, "Given:": data.given, "Source:": {"-": 0}}
    for word, sites in wanted.items():
        assert bool(sites) == bool(re.search(rf"^{word} +\S", doc, re.M)), word
    assert re.search(r"Source: .*\(?(1[89]|20)\d\d\)?", doc, re.S), "the source has no year"
    for site in [*truth, *data.observed, *data.given]:
        assert re.search(rf"\b{spoken(site)} \(", doc), f"{site} and its shape are not in the docstring"


def sizes_told(doc, sites):
    """Each letter's size, from `loc (K, D)` and the value's shape.

    Raises: AssertionError where ranks or sizes contradict.
    """
    size: dict[str, int] = {}
    for site, value in sites.items():
        told = re.search(rf"\b{spoken(site)} \(([^)]*)\)", doc)[1]
        letters = [part.strip() for part in told.split(",") if part.strip()]
        assert len(letters) == value.ndim, f"{site}: ({told}) but {tuple(value.shape)}"
        for letter, length in zip(letters, value.shape, strict=True):
            assert size.setdefault(letter, length) == length, f"{site}: {letter} is {size[letter]} and {length}"
    return size


@EVERY_MODEL
def test_shapes_in_the_docstring_are_true(name):
    """`loc (K, D)` is a promise: the rank holds, a letter is one size, and `P = D (D - 1) / 2` adds up."""
    model = resized(name)
    doc = inspect.getdoc(type(model))
    data, truth = simulate(model, 23, seed=1)
    size = sizes_told(doc, {**truth, **data.given, **data.observed})
    for letter, formula in re.findall(r"\b([A-Z]) = ([A-Z][A-Z0-9 ()+*/-]*[A-Z0-9)])", doc):
        if letter in size and set(re.findall("[A-Z]", formula)) <= size.keys():
            times = re.sub(r"([A-Z0-9]) \(", r"\1 * (", formula)
            assert eval(times, {}, dict(size)) == size[letter], f"{letter} = {formula} is not {size[letter]}"


def test_a_wrong_shape_in_a_docstring_is_found():
    sites = {"loc": torch.zeros(3, 2), "x_4": torch.zeros(5, 2)}
    assert sizes_told("loc (K, D); x_t (N, D)", sites) == {"K": 3, "D": 2, "N": 5}
    for wrong in ("loc (K,); x_t (N, D)", "loc (D, K); x_t (N, D)", "loc (N, D); x_t (N, D)"):
        with pytest.raises(AssertionError, match=r"but|is"):
            sizes_told(wrong, sites)


@EVERY_MODEL
def test_the_prior_predictive_is_seeded_and_has_its_rows(name):
    one, two, other = (simulate(model_of(name), 7, seed=seed) for seed in (3, 3, 4))
    for site in model_of(name).observed:
        assert one[0].observed[site].shape[0] == 7
        assert torch.equal(one[0].observed[site], two[0].observed[site])
    latents = {site for site, value in one[1].items() if torch.equal(value, two[1][site])}
    assert latents == one[1].keys()
    assert any(not torch.equal(value, {**other[0].observed, **other[1]}[s]) for s, value in one[0].observed.items())


@EVERY_MODEL
@pytest.mark.parametrize("seed", range(3))
def test_the_density_of_simulated_data_is_finite(name, seed):
    model = model_of(name)
    data, truth = simulate(model, 11, seed=seed)
    assert torch.isfinite(log_density(model, data, truth))


class Unread(dict):
    """Observations that may not be looked at."""

    def __getitem__(self, key):
        raise AssertionError(f"the model reads {key!r}, which it must predict")

    get = __iter__ = __contains__ = items = values = keys = __getitem__


@EVERY_MODEL
def test_the_model_never_reads_what_it_must_predict(name):
    model = model_of(name)
    data, truth = simulate(model, 6, seed=2)
    with fresh(model, seed=2) as own:
        given = own.inputs(6)
        again = poutine.trace(own.model).get_trace(Data(6, given, Unread())).nodes
    assert all(torch.equal(again[site]["value"], value) for site, value in {**truth, **data.observed}.items())


@EVERY_MODEL
def test_two_halves_average_to_the_whole(name):
    model = model_of(name)
    data, truth = simulate(model, 8, seed=1)
    nodes = trace_of(model, data, truth).nodes
    in_rows = {
        n
        for n, v in nodes.items()
        if v["type"] == "sample" and any(frame.name == "rows" for frame in v["cond_indep_stack"])
    }
    halves = torch.arange(8).split(4)
    if not set(model.observed) <= in_rows:
        with pytest.raises(ValueError, match="minibatch"):
            log_density(model, data.batch(halves[0]), truth)
        pytest.skip("its rows depend on one another, and it says so")
    parts = [{n: value[i] if n in in_rows else value for n, value in truth.items()} for i in halves]
    scores = [log_density(model, data.batch(i), part) for i, part in zip(halves, parts, strict=True)]
    torch.testing.assert_close(torch.stack(scores).mean(), log_density(model, data, truth), rtol=1e-6, atol=1e-6)
    assert not torch.isclose(scores[0], scores[1])


def options(method):
    """The small settings that this back end takes."""
    parameters = inspect.signature(BACK_ENDS[method].fit).parameters
    return {option: value for option, value in SMALL.items() if option in parameters}


def attempt(method, model, data):
    """The fit, or a skip with the reason why the two do not go together."""
    try:
        return inference.fit(method, model, data, seed=1, **options(method))
    except inference.Unsupported as why:
        reason = str(why)
    assert re.fullmatch(r"\S.*\S", reason), "the reason is one line"
    return pytest.skip(f"{method}, {type(model).__name__}: {reason}")


def world():
    """Everything outside a fit that a fit could disturb."""
    return {
        "store": {name: value.tolist() for name, value in pyro.get_param_store().items()},
        "handlers": list(runtime._PYRO_STACK),
        "torch": torch.get_rng_state().tolist(),
        "numpy": [part.tolist() if hasattr(part, "tolist") else part for part in np.random.get_state()],
        "python": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "settings": pyro.settings.get(),
    }


@pytest.fixture
def undisturbed():
    """A world with something in it, which must be as it was."""
    pyro.clear_param_store()
    pyro.param("mine", torch.ones(2))
    torch.manual_seed(11)
    np.random.seed(11)
    random.seed(11)
    before = world()
    yield
    after = world()
    pyro.clear_param_store()
    runtime._PYRO_STACK[:] = before["handlers"]
    torch.set_default_dtype(before["dtype"])
    assert after == before


@EVERY_METHOD
@EVERY_MODEL
def test_fit(name, method, undisturbed):
    model = model_of(name)
    data, truth = simulate(model, ROWS, seed=1)
    fit = attempt(method, model, data)
    assert fit.method == method
    assert fit.draws
    chains = {draws.shape[:2] for draws in fit.draws.values()} | {s.shape[:2] for s in fit.stats.values()}
    assert len(chains) == 1, "every site and statistic has the same chains and draws"
    for site, draws in fit.draws.items():
        assert draws.shape[2:] == truth[site].shape, site
        assert torch.isfinite(draws).all(), site
        assert not draws.requires_grad, site
    assert {"seed", "seconds", "converged", "message"} <= fit.info.keys()
    assert "\n" not in repr(fit)
    for objective, values in fit.trace.items():
        _check_climb(objective, values)
    tree = fit.to_datatree(prior=20)
    nodes = {site: node for site, node in trace_of(model, data, truth).nodes.items() if node["type"] == "sample"}
    computed = {site for site, node in nodes.items() if node["infer"].get("_deterministic")}
    assert fit.draws.keys() <= set(tree["posterior"].data_vars) <= fit.draws.keys() | computed
    for site, draws in fit.draws.items():
        np.testing.assert_array_equal(tree["posterior"][site].values, draws.numpy())
    assert set(tree["observed_data"].data_vars) == set(model.observed)


def _check_climb(objective, values):
    """The objective ends no lower than it began; an estimated one within its noise."""
    assert values.ndim == 1
    assert torch.isfinite(values).all(), objective
    if objective == "elbo":
        quarter = max(2, len(values) // 4)
        first, last = values[:quarter], values[-quarter:]
        noise = (first.var() / quarter + last.var() / quarter).sqrt()
        assert last.mean() >= first.mean() - 3 * noise
    else:
        assert values[-1] >= values[0] - 1e-9 * values[0].abs()


def breaking(model, method):
    """The model, made to disturb everything and then fail, wherever a back end calls it."""

    def fail(self, *args, **kwargs):
        pyro.param("leak", torch.zeros(1))
        torch.rand(1)
        np.random.rand()
        random.random()
        torch.set_default_dtype(torch.float16)
        poutine.trace().__enter__()
        raise RuntimeError("the model is broken")

    ways = [way for way in ("model", "guide", "start", "e_step", "posterior") if hasattr(model, way)]
    return type("Broken", (type(model),), dict.fromkeys(ways, fail))()


@EVERY_METHOD
@EVERY_MODEL
def test_a_failing_model_disturbs_nothing(name, method, undisturbed):
    model = model_of(name)
    data, _ = simulate(model, ROWS, seed=1)
    try:
        with pytest.raises(RuntimeError, match="the model is broken"):
            inference.fit(method, breaking(model, method), data, seed=1, **options(method))
    except inference.Unsupported as why:
        pytest.skip(str(why))


@EVERY_METHOD
def test_what_is_no_data_set_of_the_model_is_refused(method):
    model = model_of("linear")
    data, _ = simulate(model, ROWS, seed=1)
    try:
        inference.fit(method, model, data, seed=1, **options(method))
    except inference.Unsupported as why:
        pytest.skip(str(why))
    with pytest.raises(TypeError, match="one `Data`"):
        inference.fit(method, model, data.given["x"], seed=1, **options(method))
    with pytest.raises(ValueError, match="the data hold no y"):
        inference.fit(method, model, Data(ROWS, data.given), seed=1, **options(method))
    with pytest.raises(TypeError, match="no option is called num_draws"):
        inference.fit(method, model, data, num_draws=3)


def test_every_model_is_fitted_by_some_back_end():
    """A skip is for a pair; a model that nothing fits would only be skipped."""
    for name in ppmodels.names():
        model = model_of(name)
        data, _ = simulate(model, 12, seed=1)
        joint(model, (data,), {})
        able = [way for way in ("posterior", "e_step", "guide") if hasattr(model, way)]
        if not able and _learns(model, data):
            inference.fit("svi", model, data, seed=1, **options("svi"))  # by a guide by name


def _learns(model, data):
    with fresh(model, (data,)) as own:
        return any(v["type"] == "param" for v in poutine.trace(own.model).get_trace(data).nodes.values())
