"""EM reaches known optima, never falls, accelerates, says what happened, and leaves nothing behind."""

from dataclasses import dataclass

import numpy as np
import pyro
import pytest
import torch
from pyro.poutine import runtime
from sklearn.datasets import load_iris

from inference import em
from inference.base import Unsupported, joint
from inference.em.problem import Problem
from ppmodels.base import Data
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.datasets import old_faithful

FAMILIES = ("full", "tied", "diagonal", "spherical")


def iris():
    return Data(150, observed={"x": torch.tensor(load_iris().data)})


def overlapping(n=1000):
    """Three components that overlap so much that EM crawls."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.tensor([[0.0, 0], [2, 0], [1, 2]]).double()
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return Data(n, observed={"x": centre[torch.arange(n) % 3] + noise})


def mixture(data, family="full", components=3, **fields):
    return GaussianMixture.for_data(data.observed["x"], components=components, covariance=family, **fields)


@pytest.mark.parametrize(
    ("data", "family", "optimum", "options"),
    [
        (iris(), "full", -180.1855, {}),
        (iris(), "tied", -256.3540, {}),
        (old_faithful(), "tied", -1126.3159, {}),
        (old_faithful(), "full", -1114.4399, {}),  # two components share a blob: far rows seldom lead there
        (iris(), "full", -180.1855, {"accelerate": False, "num_restarts": 3}),
        (old_faithful(), "tied", -1126.3159, {"accelerate": False, "num_restarts": 2}),
    ],
)
def test_known_optima_from_own_starts(data, family, optimum, options):
    fit = em.fit(mixture(data, family), data, **options)
    assert fit.info["log_likelihood"] == pytest.approx(optimum, abs=1e-4)
    assert fit.info["converged"]
    assert fit.info["message"] == "converged"
    assert {name: value.shape[:2] for name, value in fit.draws.items()} == dict.fromkeys(fit.draws, (1, 1))
    assert fit.draws["loc"].shape == (1, 1, 3, data.observed["x"].shape[1])


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_trace_never_falls_and_bounds_hold(family, prior):
    data = old_faithful()
    fit = em.fit(mixture(data, family), data, num_restarts=3, prior=prior)
    names = ["log_likelihood", "bound", *(["log_density", "log_prior"] if prior else [])]
    assert sorted(fit.trace) == sorted(names)
    objective = fit.trace["log_density" if prior else "log_likelihood"]
    assert objective.diff().min() > -1e-10
    assert len(objective) == fit.info["num_steps"] + 1
    assert (fit.trace["bound"] <= fit.trace["log_likelihood"] + 1e-9).all()
    assert float(fit.trace["bound"][0]) == pytest.approx(float(fit.trace["log_likelihood"][0]), abs=1e-9)
    assert float(fit.trace["log_likelihood"][-1]) == fit.info["log_likelihood"]


def test_fifty_seeds_never_fall():
    data = iris()
    model = mixture(data)
    for seed in range(50):
        fit = em.fit(model, data, seed=seed, num_restarts=1, num_steps=60)
        assert fit.trace["log_likelihood"].diff().min() > -1e-10


def test_plain_em_raises_the_bound_at_every_step():
    data = old_faithful()
    fit = em.fit(mixture(data), data, num_restarts=1, accelerate=False)
    assert fit.trace["bound"].diff().min() > -1e-10


@pytest.mark.parametrize(("data", "family"), [(old_faithful(), "tied"), (overlapping(), "full")])
def test_acceleration_reaches_the_same_top_in_fewer_steps(data, family):
    options = {"num_restarts": 1, "num_steps": 20000, "tol": 1e-10}
    model = mixture(data, family, seeding="farthest")
    plain, fast = (em.fit(model, data, accelerate=on, seed=1, **options) for on in (False, True))
    assert fast.info["log_likelihood"] == pytest.approx(plain.info["log_likelihood"], abs=1e-4)
    assert fast.info["evaluations"] < plain.info["evaluations"] / 2


def test_the_prior_gives_a_mode_of_the_pyro_program(double_precision):
    data = old_faithful()
    model = mixture(data, components=2)
    fit = em.fit(model, data, prior=True, tol=1e-14, num_restarts=2)
    theta = {name: value[0, 0].requires_grad_() for name, value in fit.draws.items()}
    problem = Problem(model, data, joint(model, (data,), {}), prior=True)
    nodes = problem._sites(theta)
    log_prior = torch.stack([nodes[name]["fn"].log_prob(theta[name]).sum() for name in theta]).sum()
    objective = model.e_step(theta, data)[1] + log_prior
    gradient = dict(zip(theta, torch.autograd.grad(objective, list(theta.values())), strict=True))
    gradient["weights"] = gradient["weights"] - gradient["weights"].mean()
    for name, value in gradient.items():
        assert (value * theta[name].detach().abs()).abs().max() < 1e-3, name
    assert objective.item() == pytest.approx(float(fit.trace["log_density"][-1]), abs=1e-9)


def test_ordered_components_come_in_order():
    data = old_faithful()
    for prior in (False, True):
        fit = em.fit(mixture(data, ordered=True), data, prior=prior, num_restarts=3)
        assert (fit.draws["loc"][0, 0, :, 0].diff() > 0).all()


def test_same_seed_same_fit_and_nothing_left_behind():
    data = old_faithful()
    model = mixture(data)
    torch.manual_seed(7)
    np.random.seed(7)
    pyro.param("mine", torch.tensor(1.0))
    before, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, two = (em.fit(model, data, seed=4, num_restarts=2, num_steps=20, prior=True) for _ in range(2))
    assert all(torch.equal(one.draws[name], two.draws[name]) for name in one.draws)
    with pytest.raises(ValueError, match="is inf in row 0"):
        em.fit(model, Data(272, observed={"x": data.observed["x"] * float("inf")}))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert list(pyro.get_param_store()) == ["mine"]
    assert runtime._PYRO_STACK == []
    assert torch.get_default_dtype() == torch.float32
    pyro.clear_param_store()


def test_a_collapse_is_said_and_loses_to_a_sound_start():
    data = iris()
    fit = em.fit(mixture(data, components=3, seeding="k-means++"), data, seed=0, num_restarts=10)
    ends = [restart["message"] for restart in fit.info["restarts"]]
    assert any("collapsed; take fewer components, or prior=True" in end for end in ends)
    assert fit.info["message"] == "converged"
    few = Data(6, observed={"x": torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double()})
    lost = em.fit(mixture(few, components=5), few, num_restarts=2)
    assert not lost.info["converged"]
    assert "collapsed" in lost.info["message"]
    assert all(value.isfinite().all() for value in lost.draws.values())
    assert em.fit(mixture(few, components=5), few, num_restarts=2, prior=True).info["converged"]


def test_too_few_steps_are_said():
    data = old_faithful()
    fit = em.fit(mixture(data), data, num_steps=3, num_restarts=1)
    assert not fit.info["converged"]
    assert "not converged in 3 steps" in fit.info["message"]


@dataclass(frozen=True)
class Sloppy(GaussianMixture):
    """An M step that is not one."""

    def maximise(self, statistics, prior):
        theta = super().maximise(statistics, prior)
        return {**theta, "loc": theta["loc"] + 0.5}


def test_a_wrong_step_is_said():
    data = old_faithful()
    fit = em.fit(Sloppy.for_data(data.observed["x"]), data, num_restarts=1, accelerate=False)
    assert "the objective fell by" in fit.info["message"]
    assert not fit.info["converged"]


def test_float32_data_stay_float32():
    x = old_faithful().observed["x"].float()
    data = Data(272, observed={"x": x})
    fit = em.fit(mixture(data, components=2), data, num_restarts=2, tol=1e-6)
    assert fit.draws["loc"].dtype == torch.float32
    wide = em.fit(mixture(data, components=2), Data(272, observed={"x": x.double()}), num_restarts=2)
    assert fit.info["log_likelihood"] == pytest.approx(wide.info["log_likelihood"], abs=0.05)


def test_progress_is_shown_when_asked(capsys):
    data = old_faithful()
    em.fit(mixture(data), data, num_restarts=1, num_steps=2)
    assert capsys.readouterr().out == ""
    em.fit(mixture(data), data, num_restarts=1, num_steps=2, progress_bar=True)
    assert "em" in capsys.readouterr().out


def test_what_cannot_be_is_refused():
    with pytest.raises(Unsupported, match="<lambda> has no start, e_step, m_step and bound"):
        em.fit(lambda: None)
    with pytest.raises(TypeError, match="is fitted to one `Data`"):
        em.fit(GaussianMixture(), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="num_restarts"):
        em.fit(GaussianMixture(), old_faithful(), num_restarts=0)
