import math

import pytest
import torch

from inference import laplace, mode
from inference.base import fresh, joint
from inference.density import Density
from inference.predict import simulate
from ppmodels.population.glm import CoupledGLM

NONE = (0, 0.0)
KINDS = [
    {},
    {"coupling": (3, 0.05)},  # history and coupling on the same functions share their features
    {"stimulus": NONE, "history": NONE},
    {"coupling": NONE},
    {"filters": "smooth", "couplings": "smooth", "coupling": (3, 0.05)},
    {"observation": "bernoulli"},
    {"observation": "bernoulli", "link": "sigmoid"},
    {"link": "softplus"},
]


def alone(stimuli, **options):
    """A Poisson neuron that only its stimulus drives, in bins of a second: weights are those of a regression."""
    fields = {"neurons": 1, "stimuli": stimuli, "bin_size": 1.0, "stimulus": NONE, "history": NONE, "coupling": NONE}
    return CoupledGLM(**{**fields, "scale": 1e6, "spread": 1e6, "rate": 1.0, **options})


@pytest.mark.parametrize("fields", KINDS)
def test_the_peak_is_the_density_s_own(fields):
    model = CoupledGLM(3, 2, **fields)
    data, _ = simulate(model, 20, seed=2)
    peak = model.peak(data, curvature=True)
    assert peak.decrement < 1e-12
    with fresh(model, (data,)) as own:
        density = Density.of(joint(own, (data,), {}), (data,))
        x = density.unconstrain(peak.theta)
        value, grad = density.value_and_grad(x)
        curvature = torch.logdet(-density.hessian(x))
    assert float(grad.abs().max()) < 1e-6
    assert peak.log_density == pytest.approx(float(value), abs=1e-7)
    evidence = float(value) + density.dim / 2 * math.log(2 * math.pi) - float(curvature) / 2
    assert peak.log_evidence == pytest.approx(evidence, abs=1e-5)


def test_gradient_and_hessian_by_their_formulas_and_differences():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    y = torch.poisson((x @ torch.tensor([0.5, -0.3, 0.1]).double()).exp(), generator=generator)[:, None]
    model = alone(3)
    data = model.data(y, x)
    with fresh(model, (data,)) as own:
        density = Density.of(joint(own, (data,), {}), (data,))
        at = torch.tensor([0.2, 0.1, -0.4, 0.3], dtype=torch.float64)
        _, grad = density.value_and_grad(at)
        hessian = density.hessian(at)
        wide = torch.cat([torch.ones(200, 1), x], 1).double()
        z = (wide @ at).exp()
        torch.testing.assert_close(grad, wide.mT @ (y[:, 0] - z), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(hessian, -(wide * z[:, None]).mT @ wide, atol=1e-6, rtol=1e-6)
        step = 1e-5 * torch.eye(4, dtype=torch.float64)
        slopes = torch.stack([(density.log_prob(at + s) - density.log_prob(at - s)) / 2e-5 for s in step])
    torch.testing.assert_close(slopes, grad, rtol=1e-6, atol=1e-5)


def test_known_optima():
    y = torch.tensor([3.0, 0, 1, 4, 2, 2, 0, 7]).double()
    fit = mode.fit(alone(0), alone(0).data(y[:, None]))
    assert float(fit.draws["baseline"]) == pytest.approx(math.log(float(y.mean())), abs=1e-8)
    group = torch.tensor([0.0, 0, 0, 1, 1, 1, 0, 1]).double()
    fit = mode.fit(alone(1), alone(1).data(y[:, None], group))
    ratio = math.log(float(y[group == 1].mean() / y[group == 0].mean()))
    assert float(fit.draws["stimulus_weight"]) == pytest.approx(ratio, abs=1e-8)


def test_two_distant_starts_reach_the_same_mode():
    model = CoupledGLM(3, 1)
    data, truth = simulate(model, 20, seed=2)
    near = model.peak(data, curvature=True)
    start = {name: 1.5 + torch.zeros_like(near.theta[name]) for name in near.theta}
    far = model_peak(model, data, start)
    for name, value in near.theta.items():
        torch.testing.assert_close(far.theta[name], value, atol=1e-8, rtol=0)
    assert truth.keys() >= near.theta.keys()


def model_peak(model, data, start):
    from ppmodels.population._newton import peak

    return peak(model, data, curvature=True, start=start)


def test_penalty_to_nothing_is_the_mle_and_to_infinity_is_zero():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    y = torch.poisson((x @ torch.tensor([0.7, -0.5]).double()).exp(), generator=generator)[:, None]
    weights = {}
    for scale in (1e-6, 1e2, 1e6):
        model = alone(2, scale=scale)
        weights[scale] = mode.fit(model, model.data(y, x)).draws["stimulus_weight"].flatten()
    torch.testing.assert_close(weights[1e2], weights[1e6], atol=1e-4, rtol=0)
    assert float(weights[1e-6].abs().max()) < 1e-8


def test_without_coupling_joint_and_single_fits_are_one():
    """Zero coupling: a population is its neurons."""
    model = CoupledGLM(3, 1, coupling=NONE)
    data, _ = simulate(model, 20, seed=5)
    together = model.peak(data, curvature=True).theta
    single = CoupledGLM(1, 1, coupling=NONE)
    for n in range(3):
        own = single.inputs(1).keys()
        given = {k: data.given[k] if k == "stimulus" else data.given[k][..., n : n + 1] for k in own}
        part = type(data).of(single, **given, counts=data.observed["counts"][..., n : n + 1])
        for name, value in single.peak(part, curvature=True).theta.items():
            torch.testing.assert_close(value[0], together[name][n], atol=1e-8, rtol=0)


def test_blocks_and_missing_bins_do_not_matter(monkeypatch):
    model = CoupledGLM(3, 1)
    data, _ = simulate(model, 20, seed=2)
    seen = torch.ones_like(data.given["seen"])
    seen[3:5, 10:, 1] = 0
    data = type(data).of(model, **{**data.given, "seen": seen}, counts=data.observed["counts"])
    whole = model.peak(data, curvature=True)
    monkeypatch.setattr("ppmodels.population._bank.BINS", 7)
    monkeypatch.setattr("ppmodels.population._bank.KEPT", 0)
    pieces = model.peak(data, curvature=True)
    assert pieces.log_density == pytest.approx(whole.log_density, abs=1e-8)
    for name, value in whole.theta.items():
        torch.testing.assert_close(pieces.theta[name], value, atol=1e-8, rtol=0)


def test_a_silent_neuron_does_not_poison_the_rest(caplog):
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.full((3000, 3), 0.1, dtype=torch.float64), generator=generator)
    silent = counts.clone()
    silent[:, 1] = 0
    model = CoupledGLM(3, 0, coupling=NONE, spread=2.0)
    fits = [laplace.fit(model, model.data(y), num_samples=100) for y in (counts, silent)]
    assert "neuron 1 has no spikes" in caplog.text
    for name in ("baseline", "history_weight"):
        both = [fit.draws[name].mean((0, 1)) for fit in fits]
        torch.testing.assert_close(both[0][[0, 2]], both[1][[0, 2]], atol=1e-6, rtol=0)
        assert bool(both[1].isfinite().all())
    assert float(fits[1].draws["baseline"][..., 1].mean()) < math.log(1.0)  # below 1 Hz: 30 s without a spike


def test_singles_precision_finds_the_same():
    model = CoupledGLM(3, 1)
    data, _ = simulate(model, 40, seed=2)
    double = mode.fit(model, data)
    values = {name: value.float() for name, value in {**data.given, **data.observed}.items()}
    single = mode.fit(model, type(data).of(model, **values))
    assert single.draws["baseline"].dtype == torch.float32
    assert single.info["log_density"] == pytest.approx(double.info["log_density"], abs=1e-2)


def test_without_a_concave_law_there_is_no_own_way():
    data, _ = simulate(CoupledGLM(), 3, seed=1)
    for fields in ({"couplings": "horseshoe"}, {"filters": "ald"}, {"observation": "negative-binomial"}):
        assert CoupledGLM(**fields).peak(data) is None
