"""A density as back ends use it: its sites, its derivatives, its starts, and programs that are known to be hard."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.reparam import LocScaleReparam

from inference.base import Unsupported, fresh
from inference.density import Density
from tests.inference.density import programs

F = torch.float64


@pytest.mark.parametrize("make", programs.TRACEABLE, ids=lambda f: f.__name__)
def test_there_and_back(make):
    program, args = make()
    with fresh(program, args) as own:
        density = Density.of(own, args)
        x = density._points(3, seed=13)
        sites = density.constrain(x.reshape(3, 1, density.dim))
        for site in density.layout.sites:
            assert sites[site.name].shape == (3, 1, *site.shape)
        for i in range(3):
            values = {site.name: sites[site.name][i, 0] for site in density.layout.sites}
            torch.testing.assert_close(density.unconstrain(values), x[i], rtol=1e-6, atol=1e-8)


def test_a_missing_value_is_named():
    program, args = programs.eight_schools()
    with fresh(program, args) as own, pytest.raises(ValueError, match="tau, theta"):
        Density.of(own, args).unconstrain({"mu": torch.tensor(0.0, dtype=F)})


def test_computed_sites():
    program, args = programs.reparametrised()
    with fresh(program, args) as own:
        density = Density.of(own, args)
        sites = density.constrain(density._points(5, seed=2))
        assert density.layout.deterministic == ("theta",)
        centre, scale = sites["mu"][:, None], sites["tau"][:, None]
        torch.testing.assert_close(sites["theta"], centre + scale * sites["theta_decentered"])


def test_real_sites_are_parts_of_x_and_nothing_is_traced():
    def program(scale):
        pyro.sample("a", dist.Normal(torch.zeros(2, 3), scale).to_event(2))
        pyro.sample("b", dist.Normal(1.0, scale))

    args = (torch.tensor(2.0, dtype=F),)
    with fresh(program, args) as own:
        density, x = Density.of(own, args), torch.arange(14.0, dtype=F).reshape(2, 7)
        sites = density.constrain(x)
        assert torch.equal(sites["a"], x[:, :6].reshape(2, 2, 3))
        assert torch.equal(sites["b"], x[:, 6])
        assert density._sites().graph is None


def test_hessian():
    precision = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=F)

    def program():
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), precision_matrix=precision))

    with fresh(program, (precision,)) as own:
        density = Density.of(own)
        torch.testing.assert_close(density.hessian(torch.tensor([0.3, -2.0], dtype=F)), -precision)


def test_starts_are_finite_and_seeded():
    def program():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("wall", torch.where(x > 0, 0.0, -torch.inf))

    with fresh(program) as own:
        density = Density.of(own)
        first = density.start(20, torch.Generator().manual_seed(1))
        again = density.start(20, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert (first > 0).all()
    assert (first < 2).all()


def test_no_start_says_so():
    def program():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("nowhere", x - torch.inf)

    with fresh(program) as own, pytest.raises(ValueError, match="no start"):
        Density.of(own).start(2, torch.Generator().manual_seed(1))


def noisy():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(x + torch.randn(()), 1.0), obs=torch.zeros(()))


def subsampled():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 100, subsample_size=5) as rows:
        pyro.sample("y", dist.Normal(x, 1.0), obs=torch.arange(100.0)[rows])


@pytest.mark.parametrize("program", [noisy, subsampled])
def test_a_program_that_draws_by_itself_is_refused(program):
    with fresh(program) as own, pytest.raises(Unsupported, match="draws random numbers of its own"):
        Density.of(own)


def test_a_plate_subsampled_by_given_rows_is_scaled():
    rows = torch.tensor([1, 4, 7])

    def program(rows, y):
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 9, subsample=rows):
            pyro.sample("y", dist.Normal(x, 1.0), obs=y[rows])

    y = torch.linspace(0, 1, 9, dtype=F)
    with fresh(program, (rows, y)) as own:
        density = Density.of(own, (rows, y))
        x = density._points(2, seed=5)
        value, _ = density.batched(2, compile=False)(x)
    normal = dist.Normal(torch.zeros((), dtype=F), 1.0)
    torch.testing.assert_close(value, normal.log_prob(x[:, 0]) + 3 * normal.log_prob(y[rows] - x).sum(-1))


def test_a_log_with_its_own_derivative():
    """Pyro's `_SafeLog`, an old-style autograd function, is met where zeros are summed over."""
    move = torch.tensor([[1.0, 0.0], [0.3, 0.7]], dtype=F)

    def program(y):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z = torch.tensor(0)
        for t in pyro.markov(range(3)):
            z = pyro.sample(f"z_{t}", dist.Categorical(move[z]), infer={"enumerate": "parallel"})
            pyro.sample(f"y_{t}", dist.Normal(loc[z], 1.0), obs=y[t])

    y = torch.tensor([0.1, 0.2, 0.4], dtype=F)
    with fresh(program, (y,)) as own:
        density = Density.of(own, (y,))
        batched = density.batched(3, compile=False)
        assert batched.executor == "graph", batched.reason
        x = density._points(3, seed=4)
        value, grad = batched(x)
    truth = dist.Normal(x, 1.0).log_prob(torch.zeros((), dtype=F)).sum(-1)
    truth = truth + dist.Normal(x[:, :1], 1.0).log_prob(y).sum(-1)  # the first state is never left
    torch.testing.assert_close(value, truth)
    torch.testing.assert_close(grad[:, 0], -x[:, 0] + (y - x[:, :1]).sum(-1))
    torch.testing.assert_close(grad[:, 1], -x[:, 1])


def test_reparametrisation_changes_no_posterior():
    """Density of the centred program = density of the decentred one + log |d theta / d decentred|."""
    y, sigma = programs.eight_schools()[1]

    def centred(y, sigma):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", len(y)):
            pyro.sample("y", dist.Normal(pyro.sample("theta", dist.Normal(mu, tau)), sigma), obs=y)

    decentred = pyro.poutine.reparam(centred, {"theta": LocScaleReparam(0.0)})
    with fresh(centred, (y, sigma)) as own:
        plain = Density.of(own, (y, sigma))
        with fresh(decentred, (y, sigma)) as other:
            moved = Density.of(other, (y, sigma))
            sites = moved.constrain(moved._points(3, seed=3))
            ours = torch.stack([moved.log_prob(x) for x in moved._points(3, seed=3)])
        names = [site.name for site in plain.layout.sites]
        x = [plain.unconstrain({name: sites[name][i] for name in names}) for i in range(3)]
        truth = torch.stack([plain.log_prob(row) for row in x])
    torch.testing.assert_close(ours, truth + 8 * sites["tau"].log())


@pytest.mark.slow
@pytest.mark.parametrize("make", programs.TRACEABLE, ids=lambda f: f.__name__)
def test_compiled_is_one_by_one(make):
    program, args = make()
    with fresh(program, args) as own:
        density = Density.of(own, args)
        batched = density.batched(8, compile=True)
        x = density._points(8, seed=21)
        value, grad = batched(x)
        assert batched.executor == "inductor", batched.reason
        for i in range(8):
            truth, slope = density.value_and_grad(x[i])
            torch.testing.assert_close(value[i], truth, rtol=1e-8, atol=1e-9)
            torch.testing.assert_close(grad[i], slope, rtol=1e-8, atol=1e-8 * float(slope.abs().max()))
