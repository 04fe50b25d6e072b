"""A Bayesian neural network: its density is the textbook's, its prior is weight decay, any torch module will do."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.func import functional_call

import inference
from inference import ensemble
from inference.base import fresh, joint
from inference.density import Density, support
from inference.outcomes import outcomes
from inference.predict import simulate
from ppmodels import Data, HasNetwork, load
from ppmodels.regression.bnn import BayesianNeuralNetwork

F = torch.float64
DESCENDING = ["bayes_by_backprop", "dropout", "ensemble", "stochastic_gradient", "svgd", "swag"]
METHODS = [*DESCENDING, "laplace", "mcmc", "mode", "pathfinder", "svi"]


def log_joint(model, data, truth):
    trace = poutine.trace(pyro.condition(model.model, data={**truth, **data.observed})).get_trace(data)
    trace.compute_log_prob()
    return trace


@pytest.mark.parametrize("likelihood", ["gaussian", "heteroscedastic", "categorical", "poisson"])
def test_the_likelihood_is_torchs_loss(likelihood):
    model = BayesianNeuralNetwork(features=3, likelihood=likelihood, classes=4)
    data, truth = simulate(model, 9, seed=1)
    y, f = data.observed["y"], model.outputs({k: v for k, v in truth.items() if k != "noise"}, data)
    found = log_joint(model, data, truth).nodes["y"]["log_prob"].sum()
    expected = {
        "gaussian": lambda: nn.GaussianNLLLoss(full=True, reduction="sum")(
            f[:, 0], y, truth["noise"].square().expand(9)
        ),
        "heteroscedastic": lambda: nn.GaussianNLLLoss(full=True, reduction="sum")(f[:, 0], y, f[:, 1].exp()),
        "categorical": lambda: nn.functional.cross_entropy(f, y, reduction="sum"),
        "poisson": lambda: nn.functional.poisson_nll_loss(f[:, 0], y, reduction="sum") + torch.lgamma(y + 1).sum(),
    }[likelihood]()
    assert float(found) == pytest.approx(-float(expected), abs=1e-6)


def test_a_gaussian_prior_is_weight_decay():
    """Descent on the loss with weight decay 1 / s^2, and ascent of the log joint: the same path, step for step."""
    model = BayesianNeuralNetwork(features=2, hidden=(4,), noise=0.5, scale=(1.5,))
    with fresh(model):
        data, truth = simulate(model, 12, seed=0)
        density = Density.of(joint(model, (data,), {}), (data,), {})
        network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        names = ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]
        sds = [1.5 / math.sqrt(2), 1.5, 1.5 / 2, 1.5]
        with torch.no_grad():
            for parameter, name in zip(network.parameters(), names, strict=True):
                parameter.copy_(truth[name])
        groups = [{"params": [p], "weight_decay": sd**-2} for p, sd in zip(network.parameters(), sds, strict=True)]
        descent, rate = torch.optim.SGD(groups, lr=1e-3), 1e-3
        x = density.unconstrain(truth)
        for _ in range(50):
            x = x + rate * density.value_and_grad(x)[1]
            residual = data.observed["y"] - network(data.given["x"])[:, 0]
            loss = residual.square().sum() / (2 * 0.5**2)
            descent.zero_grad()
            loss.backward()
            descent.step()
        values = density.constrain(x[None])
        for parameter, name in zip(network.parameters(), names, strict=True):
            torch.testing.assert_close(values[name][0], parameter.detach(), rtol=0, atol=1e-12)


def test_each_layer_has_its_own_prior():
    model = BayesianNeuralNetwork(features=9, hidden=(4, 25), scale=(3.0, 2.0, 0.5), prior="laplace")
    assert model.layers == ["hidden_1", "hidden_2", "output"]
    with fresh(model):
        nodes = poutine.trace(model.weights).get_trace().nodes
    sds = {name: float(node["fn"].stddev.max()) for name, node in nodes.items() if node["type"] == "sample"}
    wanted = {"hidden_1.weight": 1.0, "hidden_1.bias": 3.0, "hidden_2.weight": 1.0, "hidden_2.bias": 2.0}
    assert sds == pytest.approx({**wanted, "output.weight": 0.1, "output.bias": 0.5})


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3)
        self.norm = nn.LayerNorm(3)
        self.end = nn.Linear(3, 2)

    def forward(self, x):
        return self.end(self.norm(self.convolution(x).relu().mean((2, 3))))


def test_any_torch_module_will_do():
    model = BayesianNeuralNetwork(network=Pictures(), likelihood="categorical", scale=(1.0, 0.1, 1.0))
    assert isinstance(model, HasNetwork)
    x = torch.randn(20, 1, 6, 6, dtype=F, generator=torch.Generator().manual_seed(0))
    data = Data(20, {"x": x}, {"y": (x.mean((1, 2, 3)) > 0).long()})
    with fresh(model, (data,)):
        density = Density.of(joint(model, (data,), {}), (data,), {})
        batched = density.batched(3)
        at = 0.3 * torch.randn(3, density.dim, dtype=F)
        value, grad = batched(at)
        truth = [density.value_and_grad(row) for row in at]
        gains = poutine.trace(model.weights).get_trace().nodes["norm.weight"]["fn"].mean
    assert batched.executor != "eager"
    torch.testing.assert_close(value, torch.stack([v for v, _ in truth]))
    torch.testing.assert_close(grad, torch.stack([g for _, g in truth]))
    assert torch.equal(gains, torch.ones_like(gains)), "a normalisation's gains are around one"
    sites = {site.name for site in density.layout.sites}
    assert sites == {name for name, _ in Pictures().named_parameters()}


def test_a_fit_with_a_network_of_ones_own_is_saved_and_asks_for_it(tmp_path):
    model = BayesianNeuralNetwork(network=nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)), noise=0.3)
    data, _ = simulate(model, 10)
    fit = ensemble.fit(model, data, num_samples=2, num_steps=20)
    path = fit.save(tmp_path / "fit.nc")
    with pytest.raises(ValueError, match="must be given"):
        inference.load(path)
    again = inference.load(path, model=model)
    assert torch.equal(again.draws["0.weight"], fit.draws["0.weight"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"network": nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))}, "layer '1' normalises over rows"),
        ({"network": nn.Sequential(nn.Linear(1, 2), nn.Dropout(0.5))}, "layer '1' drops at random"),
        ({"network": nn.Tanh()}, "has no parameters"),
        ({"scale": (1.0, 2.0, 3.0)}, "one for each of hidden, output"),
        ({"scale": (0.0,)}, "positive and finite"),
        ({"noise": -1.0}, "positive and finite"),
        ({"hidden": (3, 0)}, "at least 1"),
    ],
)
def test_what_cannot_be_a_bayesian_network_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        BayesianNeuralNetwork(**fields)


def test_shapes_that_do_not_fit_are_named():
    model = BayesianNeuralNetwork(features=2)
    with pytest.raises(ValueError, match=r"x must be \(rows, 2\); it is \(5, 3\)"):
        ensemble.fit(model, Data(5, {"x": torch.zeros(5, 3)}, {"y": torch.zeros(5)}))
    two = BayesianNeuralNetwork(network=nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"returns \(rows, 1\); it returned \(5, 2\)"):
        ensemble.fit(two, Data(5, {"x": torch.zeros(5, 2)}, {"y": torch.zeros(5)}))


@pytest.mark.parametrize(
    ("likelihood", "bad", "words"),
    [
        ("categorical", torch.tensor([0, 1, 2, 1]), "row 2: 2 cannot come from Categorical"),
        ("poisson", torch.tensor([0.0, -1.0, 2.0, 1.0]), "row 1: -1.0 cannot come from Poisson"),
        ("poisson", torch.tensor([0.0, 1.0, 2.0, 1.5]), "row 3: 1.5 cannot come from Poisson"),
        ("gaussian", torch.tensor([0.0, 1.0, 2.0, float("nan")]), "row 3"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_targets_outside_the_support_are_named(likelihood, bad, words, method):
    model = BayesianNeuralNetwork(likelihood=likelihood)
    data = Data(4, {"x": torch.zeros(4, 1)}, {"y": bad})
    with pytest.raises(ValueError, match=words):
        inference.fit(method, model, data)


@pytest.mark.parametrize("method", DESCENDING)
def test_the_row_is_named_also_where_no_first_minibatch_holds_it(method, monkeypatch):
    monkeypatch.setattr(support, "ROWS", 4)
    model = BayesianNeuralNetwork(likelihood="categorical")
    data = Data(6, {"x": torch.zeros(6, 1)}, {"y": torch.tensor([0, 1, 0, 1, 0, 2])})
    with pytest.raises(ValueError, match="row 5: 2 cannot come from Categorical"):
        inference.fit(method, model, data, batch_size=2, compile=False)


@pytest.mark.parametrize("method", DESCENDING)
def test_a_loss_that_is_no_number_is_an_error_of_every_method_that_descends(method):
    """Rates exp(f) of inputs this large overflow; methods with a line search step back instead."""
    model = BayesianNeuralNetwork(likelihood="poisson", hidden=(3,), activation="relu")
    data = Data(10, {"x": torch.full((10, 1), 1e300, dtype=F)}, {"y": torch.ones(10, dtype=F)})
    with pytest.raises(FloatingPointError, match=r"the loss is|has left the numbers"):
        inference.fit(method, model, data, num_samples=2, compile=False)


@pytest.mark.slow
def test_the_size_of_the_noise_is_recovered():
    """5,000 rows whose sd grows with x: an ensemble's exp(f_2 / 2) is within a tenth of it."""
    generator = torch.Generator().manual_seed(0)
    x = 4 * torch.rand(5000, 1, generator=generator) - 2
    sd = 0.2 + 0.3 * torch.sigmoid(2 * x[:, 0])
    y = (2 * x[:, 0]).sin() + sd * torch.randn(5000, generator=generator)
    model = BayesianNeuralNetwork(likelihood="heteroscedastic", hidden=(30,), scale=(3.0,))
    data = Data(5000, {"x": x}, {"y": y})
    fit = ensemble.fit(model, data, num_samples=2, batch_size=500, num_steps=3000)
    grid = torch.linspace(-1.9, 1.9, 50)[:, None]
    found = outcomes(fit, Data(50, {"x": grid})).aleatoric.sqrt()
    wanted = 0.2 + 0.3 * torch.sigmoid(2 * grid[:, 0])
    assert float((found / wanted - 1).abs().max()) < 0.1


def test_the_catalogue_finds_it():
    assert load("bnn") is BayesianNeuralNetwork
    model = BayesianNeuralNetwork()
    values = {name: torch.zeros(value.shape) for name, value in model.module.named_parameters()}
    assert functional_call(model.module, values, (torch.zeros(3, 1),)).shape == (3, 1)
