"""Several outputs of one Gaussian process: closed-form derivatives, and agreement with what forms the whole matrix."""

import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inference import mode
from inference.predict import prior_predictive, simulate
from ppmodels.base import Data
from ppmodels.kernels._coregionalised import CoregionalisedMarginal
from ppmodels.kernels._marginal import log_marginal
from ppmodels.kernels.coregionalised_gp import CoregionalisedGaussianProcess
from ppmodels.kernels.coregionalised_ridge import CoregionalisedRidge
from ppmodels.kernels.functions import RBF
from ppmodels.kernels.gp import GaussianProcess
from ppmodels.kernels.ridge import KernelRidge
from tests.draws import normal
from tests.test_conformance import BACK_ENDS, attempt

pytestmark = pytest.mark.usefixtures("double_precision")
ROWS, OUTPUTS = 9, 3
WIDTH, NOISE = torch.tensor([0.8, 1.3]).double(), torch.tensor([0.3, 0.5, 0.2]).double()
LOADINGS = {  # F of B = F F'
    "distinct": torch.tensor([[1.2, 0.0, 0.0], [0.5, 0.9, 0.0], [-0.7, 0.3, 0.6]]).double(),
    "all eigenvalues equal": torch.diag(2 * NOISE),
    "one function": torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]).double(),
}


def whole(x, width, loading, noise):
    """The covariance of y, output after output, (Q N, Q N)."""
    z = x / width
    gram = (-(z[:, None] - z).square().sum(-1) / 2).exp()
    return torch.kron(loading @ loading.mT, gram) + torch.kron(noise.square().diag(), torch.eye(len(x)))


def definition(y, x, width, loading, noise):
    covariance = whole(x, width, loading, noise)
    return MultivariateNormal(torch.zeros(len(covariance)), covariance, validate_args=False).log_prob(y.mT.reshape(-1))


def ours(y, x, width, loading, noise):
    return CoregionalisedMarginal(x, width, loading, noise).log_prob(y)


@pytest.mark.parametrize("loading", LOADINGS.values(), ids=LOADINGS.keys())
def test_value_gradient_and_hessian_are_those_of_the_definition(loading):
    y, x = normal(ROWS, OUTPUTS), normal(ROWS, 2, seed=1)
    place = (y, WIDTH, loading, NOISE)
    found, truth = (
        [
            f(y, x, WIDTH, loading, NOISE),
            *torch.autograd.functional.jacobian(lambda y, *theta, f=f: f(y, x, *theta), place),
            *(b for row in torch.autograd.functional.hessian(lambda y, *t, f=f: f(y, x, *t), place) for b in row),
        ]
        for f in (ours, definition)
    )
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_a_singular_point_spoils_no_neighbour():
    y, x, loading = normal(ROWS, OUTPUTS), normal(ROWS, 2, seed=1), LOADINGS["distinct"]
    noise = torch.stack([NOISE, torch.zeros(3)])
    values = torch.func.vmap(lambda s: ours(y, x, WIDTH, loading, s))(noise)
    assert values[0] == ours(y, x, WIDTH, loading, NOISE)
    assert values[1].isnan()


def test_independent_outputs_are_so_many_fits_of_one():
    y, x, amplitude = normal(ROWS, OUTPUTS), normal(ROWS, 2, seed=1), torch.tensor([1.3, 0.7, 2.0])
    leaves = [t.clone().requires_grad_() for t in (WIDTH, amplitude, NOISE)]
    width, a, s = leaves
    together = ours(y, x, width, a.diag(), s)
    apart = sum(log_marginal(y[:, q], x, width, a[q], s[q]) for q in range(OUTPUTS))
    assert torch.isclose(together, apart, rtol=1e-12)
    gradients = [torch.autograd.grad(each, leaves) for each in (together, apart)]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-9)
    new, kernel = normal(5, 2, seed=2), RBF(tuple(WIDTH.tolist()))
    fit = CoregionalisedRidge.fit(x, y, kernel, amplitude.square().diag(), NOISE)
    for q in range(OUTPUTS):
        one = KernelRidge.fit(x, y[:, q], kernel, float((NOISE[q] / amplitude[q]).square()))
        assert torch.allclose(fit.predict(new)[:, q], one.predict(new), atol=1e-10)
        assert torch.allclose(fit.variance(new)[:, q], amplitude[q] ** 2 * one.variance(new), atol=1e-10)
        assert torch.allclose(fit.leave_one_out()[:, q], one.leave_one_out(), atol=1e-10)


@pytest.mark.parametrize("loading", LOADINGS.values(), ids=LOADINGS.keys())
def test_predictions_and_leave_one_out_are_those_of_the_whole_matrix(loading):
    y, x, new = normal(ROWS, OUTPUTS), normal(ROWS, 2, seed=1), normal(5, 2, seed=2)
    kernel, between = RBF(tuple(WIDTH.tolist())), loading @ loading.mT
    fit = CoregionalisedRidge.fit(x, y, kernel, between, NOISE)
    inverse = torch.linalg.inv(whole(x, WIDTH, loading, NOISE))
    across = torch.kron(between, kernel(new, x))
    mean = (across @ inverse @ y.mT.reshape(-1)).reshape(OUTPUTS, -1).mT
    variance = between.diagonal() - (across @ inverse * across).sum(-1).reshape(OUTPUTS, -1).mT
    assert torch.allclose(fit.predict(new), mean, atol=1e-8)
    assert torch.allclose(fit.variance(new), variance, atol=1e-8)
    for row in range(ROWS):
        rest = torch.arange(ROWS) != row
        again = CoregionalisedRidge.fit(x[rest], y[rest], kernel, between, NOISE)
        assert torch.allclose(fit.leave_one_out()[row], y[row] - again.predict(x[row, None])[0], atol=1e-8)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor holds that is made."""

    size = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        self.size = max([self.size, *(t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor))])
        return made


def test_the_whole_matrix_is_never_made():
    rows, outputs = 20, 6
    width = torch.ones(1, requires_grad=True)
    with Largest() as largest:
        value = ours(normal(rows, outputs), normal(rows, 1), width, torch.eye(outputs), torch.ones(outputs))
        torch.autograd.grad(value, width)
    assert largest.size == outputs * rows**2


def test_the_likelihood_finds_the_correlation_and_one_output_tells_of_another():
    x = torch.linspace(-3, 3, 40)[:, None]
    wave = (2 * x[:, 0]).sin()
    y = torch.stack([wave, -0.5 * wave], -1) + 0.1 * normal(40, 2)
    leaves = [torch.zeros(1), 0.5 * torch.eye(2), torch.full((2,), -1.5)]
    optimiser = torch.optim.LBFGS([leaf.requires_grad_() for leaf in leaves], 0.5, 100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = -ours(y, x, leaves[0].exp(), leaves[1], leaves[2].exp())
        value.backward()
        return value

    optimiser.step(closure)
    width, loading, noise = leaves[0].detach().exp(), leaves[1].detach(), leaves[2].detach().exp()
    between, kernel = loading @ loading.mT, RBF(tuple(width.tolist()))
    assert between[0, 1] < -0.95 * (between[0, 0] * between[1, 1]).sqrt()
    assert noise.tolist() == pytest.approx([0.1, 0.1], rel=0.3)
    together = CoregionalisedRidge.fit(x, y, kernel, between, noise)
    assert (together.predict(x)[:, 1] + 0.5 * wave).abs().max() < 0.1
    apart = KernelRidge.fit(x, y[:, 1], kernel, float(noise[1].square() / between[1, 1]))
    assert (together.variance(x)[:, 1] < 0.75 * between[1, 1] * apart.variance(x)).all()


def test_outputs_that_share_their_scales_are_so_many_fits_of_one():
    """`gp` of several outputs: one factorisation, the sum of the likelihoods, each fit's predictions."""
    model = GaussianProcess(dim=2, outputs=3)
    data, latents = simulate(model, 12, seed=1)
    y, x = data.observed["y"], data.given["x"] + 0.1 * normal(12, 2)
    assert y.shape == (12, 3)
    leaves = [latents[name].double().requires_grad_() for name in ("lengthscale", "amplitude", "noise")]
    together, apart = log_marginal(y, x, *leaves), sum(log_marginal(column, x, *leaves) for column in y.mT)
    assert torch.isclose(together, apart, rtol=1e-12)
    for one, other in zip(torch.autograd.grad(together, leaves), torch.autograd.grad(apart, leaves), strict=True):
        assert torch.allclose(one, other, rtol=1e-9)

    def hessian(columns):
        flat = torch.cat([t.detach().reshape(-1) for t in leaves])
        of = lambda v: sum(log_marginal(c, x, v[:2], v[2], v[3]) for c in columns)  # noqa: E731
        return torch.autograd.functional.hessian(of, flat)

    assert torch.allclose(hessian([y]), hessian(y.mT), rtol=1e-8)
    data = Data.of(model, x=x, y=y)
    theta = dict(zip(("lengthscale", "amplitude", "noise"), (t.detach() for t in leaves), strict=True))
    fit, one = model.regression(theta, data), GaussianProcess(dim=2)
    for q, column in enumerate(y.mT):
        single = one.regression(theta, Data.of(one, x=x, y=column))
        assert torch.allclose(fit.predict(x + 0.3)[:, q], single.predict(x + 0.3))
        assert torch.allclose(fit.leave_one_out()[:, q], single.leave_one_out())
        assert torch.allclose(fit.variance(x + 0.3), single.variance(x + 0.3))


@pytest.mark.slow
@pytest.mark.parametrize("method", BACK_ENDS)
def test_every_back_end_takes_outputs_that_share_their_scales(method):
    model = GaussianProcess(outputs=2)
    data, latents = simulate(model, 30, seed=1)
    fit = attempt(method, model, data)
    assert {name: draws.shape[2:] for name, draws in fit.draws.items()} == {n: v.shape for n, v in latents.items()}
    tree = fit.to_datatree(prior=10)
    assert tree["observed_data"]["y"].shape == (30, 2)
    assert tree["posterior_predictive"]["y"].dims[2:] == tree["observed_data"]["y"].dims


@pytest.mark.parametrize(
    "model", [GaussianProcess(dim=2), GaussianProcess(dim=2, outputs=3), CoregionalisedGaussianProcess(dim=2)], ids=repr
)
def test_functions_at_new_points_are_those_of_every_draw(model):
    y = {1: normal(ROWS), 2: normal(ROWS, 2), 3: normal(ROWS, 3)}[model.outputs]
    data, new = Data.of(model, x=normal(ROWS, 2), y=y), normal(4, 2, seed=1)
    draws = {
        name: value.reshape(2, 3, *value.shape[2:])  # (chain, draw)
        for name, value in prior_predictive(model, data, num_samples=6).items()
        if name != "y"
    }
    mean, sd = model.function(draws, data, new)
    assert mean.shape == sd.shape == (2, 3, 4, *y.shape[1:])
    theta = {name: value[1, 0] for name, value in draws.items()}
    fitted = model.regression(theta, data)
    assert torch.equal(mean[1, 0], fitted.predict(new))
    at_rows, noise = model.function(draws, data, data.given["x"])[1][1, 0], theta["noise"]
    assert (at_rows < noise + 1e-12).all()  # a row tells at least what one look at it does


def test_the_prior_has_its_covariance():
    torch.manual_seed(0)
    x, loading = normal(3, 2), LOADINGS["distinct"]
    draws = CoregionalisedMarginal(x, WIDTH, loading, NOISE).sample((40000,))
    truth = whole(x, WIDTH, loading, NOISE)
    found = draws.mT.reshape(40000, -1).mT.cov(correction=0)
    spread = (truth.square() + truth.diagonal()[:, None] * truth.diagonal()).sqrt() / 200
    assert ((found - truth).abs() < 4.5 * spread).all()


def test_bad_fields_are_refused_in_one_line():
    for fields, words in (
        ({"outputs": 1}, "one output is the model gp"),
        ({"concentration": 0.0}, "concentration must be positive"),
    ):
        with pytest.raises(ValueError, match=words):
            CoregionalisedGaussianProcess(**fields)
    with pytest.raises(ValueError, match="outputs must be at least 1"):
        GaussianProcess(outputs=0)
    model = GaussianProcess(outputs=2)
    with pytest.raises(ValueError, match=r"y must be \(rows, 2\)"):
        mode.fit(model, Data.of(model, x=normal(5, 1), y=normal(5)))
