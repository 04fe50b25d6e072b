"""The Gaussian mixture against scikit-learn, by hand, by autograd, and against itself as a Pyro program."""

import math

import numpy as np
import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from sklearn.mixture import GaussianMixture as Reference
from torch.distributions import MultivariateNormal, biject_to
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import inference
from ppmodels import HasEM, HasLabels
from ppmodels.base import Data
from ppmodels.clustering import _covariance, _gaussian
from ppmodels.clustering._ordered import OrderedRows
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.datasets import old_faithful

pytestmark = pytest.mark.usefixtures("double_precision")
FAMILIES = ("full", "tied", "diagonal", "spherical")
SKLEARN = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}


def rows(x, **coords):
    return Data(len(x), observed={"x": torch.as_tensor(x)}, coords=coords)


def blobs(seed=0, n=150, dim=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    centre = 3 * torch.randn(3, dim, generator=generator)
    noise = torch.randn(n, dim, generator=generator) @ torch.randn(dim, dim, generator=generator)
    return rows((centre[torch.arange(n) % 3] + 0.6 * noise).to(dtype))


def mixture(data, family="full", components=3, **fields):
    return GaussianMixture.for_data(data.observed["x"], components=components, covariance=family, **fields)


def covariance(model, theta):
    factor = _covariance.whitening(theta, model.covariance, model.dim)
    value = _covariance.covariance(factor, model.covariance in ("full", "tied"))
    return value.expand(model.components, model.dim, model.dim)


def climb(model, data, steps, prior=False, tol=0.0):
    theta, path = model.start(data), []
    for _ in range(steps):
        q, log_likelihood = model.e_step(theta, data)
        path.append(float(log_likelihood) + (log_prior(model, theta, data) if prior else 0.0))
        if len(path) > 1 and path[-1] - path[-2] < tol:
            break
        theta = model.m_step(q, data, prior)
    return theta, torch.tensor(path)


def log_prior(model, theta, data):
    trace = poutine.trace(pyro.condition(model.model, data={**theta, **data.observed})).get_trace(data)
    return sum(trace.nodes[name]["fn"].log_prob(theta[name]).sum() for name in theta)


def hand_written(model, theta, data):
    """log p(x | theta) from torch's own multivariate normal."""
    x, sigma = data.observed["x"], covariance(model, theta)
    table = MultivariateNormal(theta["loc"], sigma).log_prob(x[:, None]) + theta["weights"].log()
    return table.logsumexp(-1).sum()


def enumerated(model, theta, data):
    """log p(x, theta) of the Pyro program, z summed out by Pyro."""
    program = pyro.condition(model.model, data={**theta, **data.observed})
    program = poutine.enum(config_enumerate(program), first_available_dim=-2)
    trace = poutine.trace(program).get_trace(data)
    return TraceEinsumEvaluator(trace, True, 1).log_prob(trace)


def test_it_has_the_abilities():
    assert isinstance(GaussianMixture(), HasEM)
    assert isinstance(GaussianMixture(), HasLabels)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("data", [old_faithful(), blobs()], ids=["faithful", "blobs"])
def test_likelihood_is_scikit_learns_from_the_same_start(family, data):
    model = mixture(data, family)
    start = model.start(data)
    sigma = covariance(model, start)
    precisions = {
        "full": sigma.inverse(),
        "tied": sigma[0].inverse(),
        "diagonal": 1 / sigma.diagonal(dim1=-2, dim2=-1),
        "spherical": 1 / sigma[:, 0, 0],
    }[family]
    x = data.observed["x"].numpy()
    theirs = Reference(
        3, covariance_type=SKLEARN[family], weights_init=start["weights"].numpy(), reg_covar=0, tol=0,
        means_init=start["loc"].numpy(), precisions_init=precisions.numpy(), max_iter=30, warm_start=True,
    )  # fmt: skip
    with pytest.warns(match="did not converge"):
        theirs.fit(x)
    theta = start
    for _ in range(30):
        theta = model.m_step(model.e_step(theta, data)[0], data, prior=False)
    assert float(model.e_step(theta, data)[1]) == pytest.approx(theirs.score(x) * len(x), abs=1e-6)
    np.testing.assert_allclose(theta["loc"], theirs.means_, atol=1e-8)


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_never_falls(family, prior):
    data = blobs(1)
    model, paths = mixture(data, family), 0
    for seed in range(50):
        torch.manual_seed(seed)
        try:
            _, path = climb(model, data, 12 if prior else 40, prior)
        except ArithmeticError:
            assert not prior  # only the likelihood has collapses
            continue
        paths += 1
        assert path.diff().min() > -1e-10
    assert paths > 40


@pytest.mark.parametrize("family", FAMILIES)
def test_bound_and_divergence_add_up_to_the_likelihood(family):
    data = blobs(2)
    model = mixture(data, family)
    theta, _ = climb(model, data, 3)
    posterior, log_likelihood = model.e_step(theta, data)
    for q in torch.distributions.Dirichlet(torch.ones(3)).sample((5, data.rows)):
        divergence = (q * (q.log() - model._log_joint(theta, data).log_softmax(-1))).sum()
        total = model.bound(q, theta, data) + divergence
        assert float(total) == pytest.approx(float(log_likelihood), abs=1e-9, rel=1e-12)
        assert divergence > 0
    assert float(model.bound(posterior, theta, data) - log_likelihood) == pytest.approx(0, abs=1e-10)


def test_one_step_on_four_points_by_hand():
    data = rows([[0.0], [1.0], [4.0], [5.0]])
    model = GaussianMixture(components=2, dim=1)
    theta = {"weights": torch.tensor([0.5, 0.5]), "loc": torch.tensor([[0.0], [5.0]]), "precision": torch.ones(2, 1)}
    q, log_likelihood = model.e_step(theta, data)
    near = [1 / (1 + math.exp(-(25 - 10 * x) / 2)) for x in (0, 1, 4, 5)]  # odds exp((x - 5)^2/2 - x^2/2)
    np.testing.assert_allclose(q[:, 0], near, rtol=1e-14)
    density = [math.exp(-(x**2) / 2) + math.exp(-((x - 5) ** 2) / 2) for x in (0, 1, 4, 5)]
    assert float(log_likelihood) == pytest.approx(sum(math.log(d / 2 / math.sqrt(2 * math.pi)) for d in density))
    theta = model.m_step(q, data, prior=False)
    count = sum(near)
    mean = sum(r * x for r, x in zip(near, (0, 1, 4, 5), strict=True)) / count
    variance = sum(r * (x - mean) ** 2 for r, x in zip(near, (0, 1, 4, 5), strict=True)) / count
    assert float(theta["weights"][0]) == pytest.approx(count / 4, rel=1e-14)
    assert float(theta["loc"][0]) == pytest.approx(mean, rel=1e-13)
    assert float(theta["precision"][0]) == pytest.approx(1 / variance, rel=1e-13)


def test_one_component_is_the_sample_mean_and_covariance():
    data = blobs(3)
    x, model = data.observed["x"], mixture(data, components=1)
    theta = model.m_step(torch.ones(len(x), 1), data, prior=False)
    torch.testing.assert_close(theta["loc"][0], x.mean(0), rtol=0, atol=1e-13)
    torch.testing.assert_close(covariance(model, theta)[0], x.T.cov(correction=0), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_m_step_is_stationary(family, prior):
    data = blobs(4)
    model = mixture(data, family)
    q = torch.distributions.Dirichlet(torch.ones(3)).sample((data.rows,))
    best = model.m_step(q, data, prior)
    theta = {name: value.clone().requires_grad_() for name, value in best.items()}
    objective = model.bound(q, theta, data) + (log_prior(model, theta, data) if prior else 0.0)
    gradient = dict(zip(theta, torch.autograd.grad(objective, list(theta.values())), strict=True))
    gradient["weights"] = gradient["weights"] - gradient["weights"].mean()  # along the simplex
    for name, value in gradient.items():
        assert value.abs().max() < 1e-8 * (1 + float(objective.detach().abs())), name


def test_fisher_identity():
    data = blobs(5)
    model = mixture(data)
    theta, _ = climb(model, data, 2)
    theta = {name: value.requires_grad_() for name, value in theta.items()}
    q, log_likelihood = model.e_step(theta, data)
    score = torch.autograd.grad(log_likelihood, list(theta.values()), retain_graph=True)
    bound = torch.autograd.grad(model.bound(q.detach(), theta, data), list(theta.values()))
    for left, right in zip(score, bound, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("family", ["full", "diagonal", "spherical"])  # all rows hold a tied covariance open
def test_collapse_is_unbounded_without_the_prior_and_bounded_with_it(family):
    data = old_faithful()
    model = mixture(data, family, components=2)
    theta, _ = climb(model, data, 5)
    theta["loc"] = torch.stack([data.observed["x"][0], theta["loc"][1]])
    plain, penalised = [], []
    for power in range(0, 20, 2):
        shrunk = dict(theta)
        scale = torch.ones(2)
        scale[0] = 10.0**power
        shrunk["precision"] = theta["precision"] * scale.reshape(-1, *[1] * (theta["precision"].ndim - 1))
        plain.append(float(model.e_step(shrunk, data)[1]))
        penalised.append(plain[-1] + float(log_prior(model, shrunk, data)))
    assert plain[-1] > plain[-2] > plain[-3] > plain[-4]  # up without end
    assert np.argmax(penalised) < 2
    assert penalised[-1] < penalised[0] - 1e6


def test_a_collapse_is_reported():
    data = rows([[0.0], [1.0], [1.5], [9.0]])
    model = GaussianMixture(components=2, dim=1)
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ArithmeticError, match=r"component 1 \(of 1 rows\) has collapsed"):
        model.m_step(q, data, prior=False)
    with pytest.raises(ArithmeticError, match="component 0"):
        model.m_step(q[:, [1, 1]] * 0 + torch.tensor([0.0, 1.0]), data, prior=False)
    assert model.m_step(q, data, prior=True)["precision"].isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_far_from_zero_keeps_its_digits(family):
    exact = blobs(6)
    shifted = rows((exact.observed["x"] + 1e4).float())
    wide = rows(shifted.observed["x"].double())
    q = torch.distributions.Dirichlet(torch.ones(3)).sample((exact.rows,))
    model = mixture(wide, family)
    single, double = model.m_step(q.float(), shifted, False), model.m_step(q, wide, False)
    assert single["loc"].dtype == torch.float32
    torch.testing.assert_close(single["precision"].double(), double["precision"], rtol=1e-5, atol=0)
    assert float(model.e_step(single, shifted)[1]) == pytest.approx(float(model.e_step(double, wide)[1]), rel=1e-3)
    two = rows(torch.tensor([[9999.0], [0.0]]))
    narrow = GaussianMixture(components=2, dim=1, covariance="spherical", center=(5000.0,), scale=(5000.0,))
    theta = narrow.m_step(torch.eye(2), two, prior=True)
    assert (theta["precision"] > 1e-7).all()
    assert theta["loc"].flatten().tolist() == pytest.approx([9999, 0], abs=600)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dim", [1, 3])
def test_pyro_program_is_the_hand_written_density(family, ordered, dim):
    data = blobs(7, dim=dim)
    model = mixture(data, family, ordered=ordered)
    theta = model.relabel(climb(model, data, 2)[0])
    log_joint, expected = enumerated(model, theta, data), hand_written(model, theta, data)
    assert float(log_joint - log_prior(model, theta, data)) == pytest.approx(float(expected), abs=1e-10, rel=1e-13)
    assert float(model.e_step(theta, data)[1]) == pytest.approx(float(expected), abs=1e-10, rel=1e-13)


def test_prior_on_the_precision_is_wishart():
    model = GaussianMixture(components=1, dim=3, scale=(1.0, 2.0, 0.5))
    prior = torch.distributions.Wishart(
        df=torch.tensor(model.strength + 2),
        precision_matrix=(model.strength * (model.width * torch.tensor(model.scale)) ** 2).diag(),
    )
    gaps = []
    for _ in range(3):
        free = {"precision": torch.rand(1, 3) + 0.5, "off_diagonal": torch.randn(1, 3)}

        def to_matrix(vector):
            factor = _covariance.whitening({"precision": vector[None, :3], "off_diagonal": vector[None, 3:]}, "full", 3)
            return (factor.mT @ factor)[0][tuple(torch.tril_indices(3, 3))]

        vector = torch.cat([free["precision"][0], free["off_diagonal"][0]])
        jacobian = torch.autograd.functional.jacobian(to_matrix, vector)
        ours = sum(
            node["fn"].log_prob(node["value"]).sum()
            for name, node in poutine.trace(pyro.condition(model.model, data=free)).get_trace(Data(1)).nodes.items()
            if name in free
        )
        factor = _covariance.whitening(free, "full", 3)[0]
        gaps.append(float(prior.log_prob(factor.mT @ factor) + jacobian.det().abs().log() - ours))
    assert gaps == pytest.approx([0, 0, 0], abs=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_have_the_moments_that_they_should(family):
    model = GaussianMixture(components=2, dim=2, covariance=family, width=1.0)
    data = Data(20000)
    trace = poutine.trace(model.model).get_trace(data)
    x, z = trace.nodes["x"]["value"], trace.nodes["z"]["value"]
    for k in range(2):
        sigma, n = trace.nodes["covariance"]["value"][k], int((z == k).sum())
        assert n > 50
        torch.testing.assert_close(x[z == k].T.cov(), sigma, rtol=0, atol=float(10 * sigma.norm() / n**0.5))
        gap = x[z == k].mean(0) - trace.nodes["loc"]["value"][k]
        assert (gap.abs() < 5 * (sigma.diagonal() / n).sqrt()).all()


def test_it_traces_and_batches():
    data = old_faithful()
    model = mixture(data, components=2, ordered=True)
    theta, _ = climb(model, data, 3)
    theta = model.relabel(theta)
    shapes = {name: biject_to(node["fn"].support) for name, node in
              poutine.trace(model.model).get_trace(data).nodes.items() if name in theta}  # fmt: skip
    free = {name: shapes[name].inv(value) for name, value in theta.items()}

    def log_joint(free):
        values = {name: shapes[name](value) for name, value in free.items()}
        with pyro.validation_enabled(False):
            return enumerated(model, values, data)

    graph = make_fx(log_joint)(free)
    moved = {name: value + 0.1 for name, value in free.items()}
    torch.testing.assert_close(graph(moved), log_joint(moved), rtol=1e-12, atol=0)
    chains = {name: torch.stack([value, value + 0.1]) for name, value in free.items()}
    both = torch.vmap(make_fx(log_joint)(free))(chains)
    torch.testing.assert_close(both, torch.stack([log_joint(free), log_joint(moved)]), rtol=1e-12, atol=0)


class Largest(TorchDispatchMode):
    """Remember the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in (out if isinstance(out, tuple | list) else [out]) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *(t.numel() for t in tensors)])
        return out


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_rows_by_components_by_columns(family, monkeypatch):
    n, dim, components = 4000, 8, 12
    data = rows(torch.randn(n, dim))
    model = mixture(data, family, components=components)
    monkeypatch.setattr(_gaussian, "CHUNK", 2**12)
    theta = model.start(data)
    with Largest() as em:
        q, _ = model.e_step(theta, data)
        model.m_step(q, data, prior=False)
        model.bound(q, theta, data)
    assert em.elements <= n * components
    with Largest() as program:
        enumerated(model, theta, data)
    assert program.elements <= n * max(components, dim * (dim + 1)) < n * components * dim


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(FAMILIES), st.integers(1, 5), st.sampled_from([(), (3,), (2, 4)]))
def test_relabelling_only_permutes(seed, family, components, batch):
    generator = torch.Generator().manual_seed(seed)
    model = GaussianMixture(components=components, dim=2, covariance=family)
    names = {name: node["value"] for name, node in poutine.trace(model.model).get_trace(Data(6)).nodes.items()
             if name in ("weights", "loc", "precision", "off_diagonal", "covariance")}  # fmt: skip
    draws = {name: torch.randn(*batch, *value.shape, generator=generator) for name, value in names.items()}
    draws["z"] = torch.randint(components, (*batch, 6), generator=generator)
    new = model.relabel(draws)
    assert (new["loc"][..., 0].diff(dim=-1) >= 0).all()
    own = [n for n in names if not (family == "tied" and n in ("precision", "off_diagonal"))]
    for index in np.ndindex(*batch):
        order = [(draws["loc"][index] == row).all(-1).nonzero().item() for row in new["loc"][index]]
        assert sorted(order) == list(range(components))
        for name in names:
            expected = draws[name][index][order] if name in own else draws[name][index]
            assert torch.equal(new[name][index], expected), name
        assert torch.equal(new["loc"][index][new["z"][index]], draws["loc"][index][draws["z"][index]])
    again = model.relabel(new)
    assert all(torch.equal(again[name], new[name]) for name in new)


def test_ordered_rows_are_a_distribution():
    ordered = OrderedRows(3, torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.5]))
    draws = ordered.sample((4000,))
    assert ordered.support.check(draws).all()
    assert draws.mean((0, 1)).tolist() == pytest.approx([1, -1], abs=0.1)
    transform = biject_to(ordered.support)
    free = torch.randn(3, 2)
    torch.testing.assert_close(transform.inv(transform(free)), free)
    jacobian = torch.autograd.functional.jacobian(transform, free).reshape(6, 6)
    torch.testing.assert_close(transform.log_abs_det_jacobian(free, transform(free)), jacobian.det().abs().log())
    one = OrderedRows(2, torch.zeros(1), torch.ones(1))
    grid = torch.linspace(-8, 8, 801)
    a, b = torch.meshgrid(grid, grid, indexing="ij")
    density = one.log_prob(torch.stack([a, b], -1)[..., None]).exp() * (b > a)
    assert float(density.sum() * 0.02**2) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("seeding", ["mixed", "k-means++", "farthest", "random"])
def test_starts_differ_and_are_finite(seeding):
    data = old_faithful()
    model = mixture(data, seeding=seeding)
    starts = [model.start(data) for _ in range(4)]
    assert all(value.isfinite().all() for theta in starts for value in theta.values())
    assert len({tuple(theta["loc"].flatten().tolist()) for theta in starts}) > 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"components": 0}, "components must be at least 1; it is 0"),
        ({"dim": 0}, "dim must be at least 1"),
        ({"covariance": "round"}, "covariance must be one of full, tied, diagonal, spherical; it is 'round'"),
        ({"seeding": "first"}, "seeding must be one of"),
        ({"scale": (1.0, 0.0)}, "scale must be positive"),
        ({"center": (1.0, 2.0, 3.0)}, "center needs 1 or 2 numbers; it has 3"),
        ({"strength": 2.0}, "strength must be above 2"),
        ({"width": float("nan")}, "width must be above 0 and finite"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        GaussianMixture(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(5, 3), r"x must be \(rows, 2\); it is \(5, 3\)"),
        (torch.randn(5), r"x must be \(rows, 2\); it is \(5,\)"),
        (torch.randn(2, 2), "3 components need at least as many rows; x has 2"),
        (torch.tensor([[1.0, math.nan]] * 2 + [[3.0, math.nan]]), "column 'waiting' of x has no value at all"),
        (torch.tensor([[1.0, 2], [3, 4], [math.inf, 2], [1, 1]]), "x is inf in row 2, column 'eruptions'"),
        (torch.tensor([[1.0, 2], [1, 4], [1, 2], [1, 1]]), "column 'eruptions' of x is constant"),
        (torch.tensor([[1.0, 2], [3, 4], [1, 2], [3, 4]]), "only 2 distinct rows; 3 components need 3"),
    ],
)
def test_wrong_rows_are_refused_in_one_line(x, message):
    with pytest.raises(ValueError, match=message) as error:
        GaussianMixture(components=3).start(rows(x, feature=("eruptions", "waiting")))
    assert "\n" not in str(error.value)


def faulty(kind):
    x = old_faithful().observed["x"].clone()
    if kind == "infinite":
        x[3, 1] = torch.inf
    if kind == "constant":
        x[:, 1] = 4.0
    return {"few": x[:2], "duplicated": x[:2].repeat(50, 1), "narrow": x[:, :1], "flat": x[:, 0]}.get(kind, x)


@pytest.mark.parametrize("method", ["em", "mode", "laplace", "svi", "mcmc"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("infinite", "x is inf in row 3, column 'waiting'"),
        ("constant", "column 'waiting' of x is constant; leave it out"),
        ("few", "3 components need at least as many rows; x has 2"),
        ("duplicated", "x has only 2 distinct rows; 3 components need 3"),
        ("narrow", r"x must be \(rows, 2\); it is \(272, 1\)"),
        ("flat", r"x must be \(rows, 2\); it is \(272,\)"),
    ],
)
def test_bad_rows_are_named_in_one_line_by_every_back_end(kind, said, method):
    model = GaussianMixture(components=3)
    data = Data.of(model, x=faulty(kind), coords={"feature": ("eruptions", "waiting")})
    with pytest.raises(ValueError, match=f"^{said}$"):
        inference.fit(method, model, data)
