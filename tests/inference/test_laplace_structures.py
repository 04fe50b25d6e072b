"""Laplace by structures: exact where a network is linear, the parts that they claim to be, and tuned evidence."""

import dataclasses
import math

import pytest
import scipy.optimize
import torch
from torch import nn

from inference import Unsupported, laplace
from inference.base import fresh, joint
from inference.density import Density
from inference.laplace.network import Network, precisions
from inference.laplace.posterior import Posterior
from inference.laplace.structures import Curvature
from inference.laplace.summits import Mode
from inference.laplace.tuning import ROUGH, tune
from inference.outcomes import log_predictive, outcomes
from inference.predict import simulate
from ppmodels.base import Data
from ppmodels.regression.bnn import BayesianNeuralNetwork
from ppmodels.regression.linear import LinearRegression

F = torch.float64


def linear():
    """A linear network, whose posterior is exact, and its posterior's mean and precision."""
    model = BayesianNeuralNetwork(features=3, hidden=(), noise=0.7, scale=(2.0,))
    data, _ = simulate(model, 40, seed=0)
    x = torch.cat([data.given["x"], torch.ones(40, 1)], 1).to(F)
    prior = torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=F) / 4
    precision = x.T @ x / 0.49 + torch.diag(prior)
    return model, data, torch.linalg.solve(precision, x.T @ data.observed["y"].to(F) / 0.49), precision, prior


@pytest.mark.parametrize("structure", ["full", "ggn", "kfac", "last-layer"])
def test_on_a_linear_network_it_is_exact(structure):
    model, data, mean, precision, prior = linear()
    fit = laplace.fit(model, data, structure=structure, num_samples=10)
    assert torch.allclose(fit.state["loc"], mean, atol=1e-8)
    covariance = torch.linalg.inv(precision)
    if "precision_tril" in fit.state:
        found = torch.cholesky_inverse(fit.state["precision_tril"])
        assert torch.allclose(found, covariance, atol=1e-8)
    else:
        assert torch.allclose(fit.state["variance"], covariance.diagonal(), atol=1e-8)
    x = torch.cat([data.given["x"], torch.ones(40, 1)], 1).to(F)
    whole = x @ torch.diag(1 / prior) @ x.T + 0.49 * torch.eye(40, dtype=F)
    marginal = torch.distributions.MultivariateNormal(torch.zeros(40, dtype=F), whole)
    assert fit.info["log_evidence"] == pytest.approx(float(marginal.log_prob(data.observed["y"].to(F))), abs=1e-8)


def test_diagonal_and_subnetwork_are_parts_of_the_whole():
    model, data, _, precision, _ = linear()
    diagonal = laplace.fit(model, data, structure="diagonal", num_samples=10)
    assert torch.allclose(diagonal.state["variance"], 1 / precision.diagonal(), atol=1e-8)
    some = laplace.fit(model, data, structure="subnetwork", subnetwork=2, num_samples=10)
    chosen = precision.diagonal().argsort()[:2].sort().values
    block = torch.linalg.inv(precision[chosen][:, chosen]).diagonal()
    assert torch.allclose(some.state["variance"][chosen], block, atol=1e-8)
    assert int((some.state["variance"] > 0).sum()) == 2


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 3, 2)
        self.last = nn.Linear(9, 4)

    def forward(self, x):
        return self.last(self.first(x).tanh().flatten(1))


@pytest.mark.parametrize("likelihood", ["heteroscedastic", "categorical", "poisson"])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_gauss_newton_matrix_is_its_definition(likelihood, mixed):
    """sum J' Lambda J by a plain Jacobian, and its diagonal by passes; Lambda as the textbook has it."""
    if mixed and likelihood != "categorical":
        pytest.skip("its network has four outputs")
    network = Mixed() if mixed else None
    model = BayesianNeuralNetwork(features=2, hidden=(4,), likelihood=likelihood, classes=4, network=network)
    data = Data(6, {"x": torch.randn(6, *((2, 4) if mixed else (2,)), dtype=F)}, {"y": torch.ones(6).to(F)})
    weights = {name: torch.randn(value.shape, dtype=F) for name, value in model.module.named_parameters()}
    at = Network(model, weights, {}, data)
    names, f = list(weights), model.outputs(weights, data)
    fisher = {
        "heteroscedastic": lambda: torch.diag_embed(torch.stack([(-f[:, 1]).exp(), torch.full((6,), 0.5, dtype=F)], 1)),
        "categorical": lambda: torch.diag_embed(f.softmax(-1)) - f.softmax(-1)[:, :, None] * f.softmax(-1)[:, None],
        "poisson": lambda: f.exp()[..., None],
    }[likelihood]()
    assert torch.allclose(at.fisher, fisher, atol=1e-10)
    flat = torch.func.jacrev(lambda w: model.outputs(w, data))(weights)
    jacobian = torch.cat([flat[name].flatten(2) for name in names], 2)
    wanted = torch.einsum("nkp,nkl,nlq->pq", jacobian, fisher, jacobian)
    assert torch.allclose(at.gauss_newton(names), wanted, atol=1e-9)
    diagonal = at.diagonal()
    assert torch.allclose(torch.cat([diagonal[name].flatten() for name in names]), wanted.diagonal(), atol=1e-9)


def test_a_layers_factors_multiply_to_one_rows_block():
    """With a single row and output the factors are no approximation: the layer's block is A (x) G."""
    model = BayesianNeuralNetwork(features=2, hidden=(3,), noise=0.5)
    data, truth = simulate(model, 1, seed=0)
    weights = {name: truth[name].to(F) for name, _ in model.module.named_parameters()}
    at = Network(model, weights, {}, data)
    block = at.gauss_newton(["hidden.weight"])
    ((_, inputs, slopes),) = (found for found in at.passes({"hidden"}))
    assert torch.allclose(torch.kron(slopes.T @ slopes, inputs.T @ inputs), block, atol=1e-10)
    sds = precisions(model, weights)
    assert torch.allclose(sds["output.weight"], torch.full((1, 3), 3.0, dtype=F))


def test_the_tangent_predicts_as_the_exact_linear_posterior():
    model, data, mean, precision, _ = linear()
    fit = laplace.fit(model, data, structure="ggn", num_samples=20_000)
    assert fit.info["linearised"]
    x = torch.randn(5, 3, dtype=F)
    seen, design = outcomes(fit, Data(5, {"x": x})), torch.cat([x, torch.ones(5, 1, dtype=F)], 1)
    assert torch.allclose(seen.location, design @ mean, atol=0.02)
    variance = (design @ torch.linalg.inv(precision) * design).sum(-1)
    assert torch.allclose(seen.epistemic, variance, rtol=0.05)


def test_it_is_surer_near_the_data_than_away_from_it():
    """The tangent's uncertainty grows outside; drawn weights in the network itself would be far off everywhere."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(60, 1, generator=generator, dtype=F) - 1
    data = Data(60, {"x": x}, {"y": (3 * x[:, 0]).sin() + 0.1 * torch.randn(60, generator=generator, dtype=F)})
    model = BayesianNeuralNetwork(hidden=(15,), scale=(3.0, 1.0))
    fit = laplace.fit(model, data, structure="ggn", num_samples=500)
    seen = outcomes(fit, Data(2, {"x": torch.tensor([[0.0], [4.0]], dtype=F)}))
    assert float(seen.epistemic[1]) > 25 * float(seen.epistemic[0])
    bent = laplace.fit(model, data, structure="ggn", num_samples=500, linearise=False)
    assert float(log_predictive(fit).mean()) > float(log_predictive(bent).mean())


def test_tuned_evidence_is_the_exact_evidences_maximum():
    model = LinearRegression(features=3)
    data, _ = simulate(LinearRegression(features=3, spread=2.0, noise=0.5), 60, seed=1)
    fit = laplace.fit(model, data, tuned=("noise", "spread"), num_restarts=2)

    def missed(logs):
        noise, spread = (math.exp(v) for v in logs)
        return -float(dataclasses.replace(model, noise=noise, spread=spread).log_evidence(data))

    best = scipy.optimize.minimize(missed, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    assert math.log(fit.info["noise"]) == pytest.approx(best.x[0], abs=1e-4)
    assert math.log(fit.info["spread"]) == pytest.approx(best.x[1], abs=1e-4)
    assert fit.info["log_evidence"] == pytest.approx(-best.fun, abs=1e-7)
    assert fit.model.noise == fit.info["noise"]


@pytest.mark.parametrize("structure", ["kfac", "ggn"])
def test_a_tuned_network_has_more_evidence_than_at_the_start_and_than_aside(structure):
    """Aside means the mode that one climb from the tuned one reaches under other fields, as the rounds take it."""
    model = BayesianNeuralNetwork(features=2, hidden=(8,), scale=(0.3,), noise=1.5)
    data, _ = simulate(BayesianNeuralNetwork(features=2, hidden=(8,), scale=(1.0,), noise=0.3), 60, seed=0)
    options, generator = {"num_restarts": 1, "num_steps": 1000, "tol": 1e-3, "newton": 0}, torch.Generator()
    with fresh(model, (data,)):
        density = Density.of(joint(model, (data,), {}), (data,), {})
        start = Mode.of(model, density, generator.manual_seed(0), structure, None, options)
        found, _, settled = tune(start, ("scale", "noise"), lambda at: at.climbed(generator, options), 1e-3)
        assert settled
        assert found.log_evidence > start.log_evidence + 10
        for scale, noise in ((0.8, 1.0), (1.25, 1.0), (1.0, 0.8), (1.0, 1.25)):
            changed = {"scale": (scale * found.model.scale[0],), "noise": noise * found.model.noise}
            aside = found.under(dataclasses.replace(found.model, **changed)).climbed(generator, options)
            assert aside.log_evidence < found.log_evidence + ROUGH


@pytest.mark.parametrize("structure", ["diagonal", "kfac", "ggn"])
def test_post_hoc_holds_the_mode_and_tunes_around_it(structure):
    """The evidence that it climbs is written out here anew, from a Gauss-Newton matrix by a plain Jacobian."""
    model = BayesianNeuralNetwork(features=2, hidden=(4,), noise=0.7)
    data, _ = simulate(BayesianNeuralNetwork(features=2, hidden=(4,), noise=0.3), 30, seed=1)
    options = {"structure": structure, "num_restarts": 1, "num_samples": 10}
    plain, fit = (laplace.fit(model, data, tuned=t, post_hoc=True, **options) for t in ((), ("scale", "noise")))
    assert torch.equal(plain.state["loc"], fit.state["loc"])

    def held(scale, noise):
        tuned = dataclasses.replace(model, scale=(scale,), noise=noise)
        with fresh(tuned, (data,)):
            density = Density.of(joint(tuned, (data,), {}), (data,), {})
            half = Curvature(density, fit.state["loc"], tuned).around(structure).half_log_det()
            dim = density.dim
            return float(density.log_prob(fit.state["loc"])) + 0.5 * dim * math.log(2 * math.pi) - half

    scale, noise = fit.info["scale"][0], fit.info["noise"]
    assert fit.info["log_evidence"] == pytest.approx(held(scale, noise), abs=1e-7)
    for other in ((1.02 * scale, noise), (scale / 1.02, noise), (scale, 1.02 * noise), (scale, noise / 1.02)):
        assert held(*other) < fit.info["log_evidence"]


def test_the_lean_posterior_is_the_density_and_is_none_where_it_cannot_be():
    gaussian = BayesianNeuralNetwork(features=2, hidden=(3,), likelihood="categorical", classes=3, scale=(0.5, 2.0))
    data, _ = simulate(gaussian, 12, seed=0)
    learned = BayesianNeuralNetwork(features=2, hidden=(3,))
    real, _ = simulate(learned, 12, seed=0)
    for model, rows, there in ((gaussian, data, True), (learned, real, False)):
        with fresh(model, (rows,)):
            density = Density.of(joint(model, (rows,), {}), (rows,), {})
            lean = Posterior.of(model, density)
            assert (lean is not None) == there
            x = torch.linspace(-2, 1, density.dim)
            for ours, theirs in zip(lean.value_and_grad(x), density.value_and_grad(x), strict=True) if lean else ():
                assert torch.allclose(ours, theirs, rtol=1e-5)
    heavy = dataclasses.replace(gaussian, prior="student")
    with fresh(heavy, (data,)):
        assert Posterior.of(heavy, Density.of(joint(heavy, (data,), {}), (data,), {})) is None


def test_what_a_structure_cannot_treat_is_named():
    model = BayesianNeuralNetwork(network=Mixed(), likelihood="categorical", classes=4)
    x = torch.randn(8, 2, 4, dtype=F)
    data = Data(8, {"x": x}, {"y": torch.arange(8) % 4})
    with pytest.raises(Unsupported, match="layer 'first' is Conv1d, and kfac knows Linear"):
        laplace.fit(model, data, structure="kfac", num_steps=20, num_restarts=1)
    heavy = BayesianNeuralNetwork(prior="student")
    with pytest.raises(Unsupported, match="Gaussian prior that all units of layer 'hidden' share"):
        laplace.fit(heavy, simulate(heavy, 10)[0], structure="kfac", num_steps=20, num_restarts=1)
    line = LinearRegression()
    rows, _ = simulate(line, 10)
    with pytest.raises(Unsupported, match="looks into a network's layers"):
        laplace.fit(line, rows, structure="kfac")
    with pytest.raises(Unsupported, match="takes a network's tangent"):
        laplace.fit(line, rows, linearise=True)
    with pytest.raises(ValueError, match="no structure 'block'"):
        laplace.fit(line, rows, structure="block")
    with pytest.raises(ValueError, match="no field 'sigma'"):
        laplace.fit(line, rows, tuned=("sigma",))
    with pytest.raises(Unsupported, match="starts from positive numbers; intercept is True"):
        laplace.fit(line, rows, tuned=("intercept",))


def test_the_curvature_of_other_sites_stands_beside_the_weights():
    """A learned noise has its exact curvature, and is uncorrelated with the weights as in Fisher's matrix."""
    model = BayesianNeuralNetwork(features=1, hidden=(3,))
    data, _ = simulate(model, 30, seed=0)
    fit = laplace.fit(model, data, structure="diagonal", num_samples=10)
    with fresh(model, (data,)):
        density = Density.of(joint(model, (data,), {}), (data,), {})
        (place,) = (site.start for site in density.layout.sites if site.name == "noise")
        exact = -density.hessian(fit.state["loc"])[place, place]
        assert float(1 / fit.state["variance"][place]) == pytest.approx(float(exact), rel=1e-8)
        assert Curvature(density, fit.state["loc"], model).around("ggn").free == density.dim
