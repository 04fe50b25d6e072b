"""Other coordinates for a site are the same model, whatever the centredness."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference.base import fresh
from inference.density import Density
from inference.density.centring import Centring, turned

Y = torch.tensor([28.0, 8.0, -3.0, 7.0], dtype=torch.float64)


def schools(family):
    def program(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", len(y)):
            theta = pyro.sample("theta", family(mu, tau))
            pyro.sample("y", dist.Normal(theta, 10.0), obs=y)

    return program


def several(y):
    v = pyro.sample("v", dist.Normal(0.0, 1.0))
    w = pyro.sample("w", dist.LogNormal(v, v.exp().expand(3)).to_event(1))
    x = pyro.sample("x", dist.Normal(torch.zeros(()), 2.0))
    before = pyro.sample("first", dist.Normal(0.0, v.exp()))
    after = pyro.sample("second", dist.Normal(before, v.exp()))
    pyro.sample("y", dist.Normal(w.sum() + x + after, 1.0).expand([len(y)]).to_event(1), obs=y)


FAMILIES = {
    "normal": dist.Normal,
    "student": lambda loc, scale: dist.StudentT(4.0, loc, scale),
    "cauchy": dist.Cauchy,
    "laplace": dist.Laplace,
    "logistic": dist.Logistic,
    "log-normal": dist.LogNormal,
}
PROGRAMS = {name: schools(family) for name, family in FAMILIES.items()} | {"several": several}


def written(density, there, u):
    """The coordinates as written of the sites' values at u, (n, dim)."""
    values = there.constrain(u)
    rows = [{name: value[i] for name, value in values.items()} for i in range(len(u))]
    return torch.stack([density.unconstrain(row) for row in rows])


@pytest.mark.parametrize("share", [1.0, 0.0, 0.3, "each its own"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_density_is_the_program_s_times_the_jacobian(name, share):
    generator = torch.Generator().manual_seed(1)
    with fresh(PROGRAMS[name], (Y,)):
        density = Density.of(PROGRAMS[name], (Y,))
        centring = Centring.of(density)
        whole, dim = centring.all_at(1.0), density.dim
        c = torch.rand(dim, generator=generator).double() if isinstance(share, str) else share * whole
        there = centring.at(c)
        u = 0.5 * torch.randn(3, dim, generator=generator, dtype=Y.dtype)
        x, batched = written(density, there, u), there.batched(3)
        assert batched.executor == "graph"
        moved = 1e-5 * torch.eye(dim, dtype=Y.dtype)
        slopes = [(written(density, there, row + moved) - written(density, there, row - moved)) / 2e-5 for row in u]
        log_det = torch.linalg.slogdet(torch.stack(slopes))[1]
        torch.testing.assert_close(batched(u)[0], density.batched(3)(x)[0] + log_det, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(turned(u, *centring.parameters(u, c), c, whole), x)
        torch.testing.assert_close(turned(x, *centring.parameters(x, whole), whole, c), u)
        values = there.constrain(u)
        torch.testing.assert_close(there.unconstrain({name: value[1] for name, value in values.items()}), u[1])


def test_sites_with_a_latent_scale_are_found():
    def found(program):
        with fresh(program, (Y,)):
            centring = Centring.of(Density.of(program, (Y,)))
            return centring and centring.names

    assert found(schools(dist.Normal)) == ("theta",)
    assert found(several) == ("w", "first", "second")
    assert found(schools(lambda loc, scale: dist.Normal(loc, 3.0))) is None
    assert found(schools(lambda loc, scale: dist.Gumbel(loc, scale))) is None
    assert found(schools(lambda loc, scale: dist.Normal(loc, scale).mask(False))) is None


def test_a_site_under_a_summed_out_one_is_left_as_written():
    def program(y):
        scale = pyro.sample("scale", dist.HalfNormal(torch.ones(2)).to_event(1))
        z = pyro.sample("z", dist.Bernoulli(0.5))
        x = pyro.sample("x", dist.Normal(0.0, 1.0 + z))
        pyro.sample("w", dist.Normal(0.0, scale[z.long()]))
        pyro.sample("y", dist.Normal(x, scale[0]).expand([len(y)]).to_event(1), obs=y)

    with fresh(program, (Y,)):
        density = Density.of(program, (Y,))
        assert density.layout.enumerated == ("z",)
        assert Centring.of(density) is None


def test_a_scale_that_is_all_but_zero_rounds_nothing_away():
    def program():
        depth = pyro.sample("depth", dist.Normal(0.0, 20.0))
        pyro.sample("x", dist.Normal(5.0, depth.exp()))

    with fresh(program):
        density = Density.of(program)
        centring = Centring.of(density)
        u = torch.tensor([[-50.0, 1.5]], dtype=torch.float64)  # a scale of 2e-22, beside 5
        value, grad = centring.at(centring.all_at(0.0)).batched(1)(u)
        truth = dist.Normal(0.0, 20.0).log_prob(u[0, 0]) + dist.Normal(0.0, 1.0).log_prob(u[0, 1])
        torch.testing.assert_close(value[0], truth)
        torch.testing.assert_close(grad[0], torch.tensor([50.0 / 400, -1.5], dtype=torch.float64))


def test_another_centredness_needs_no_new_trace(monkeypatch):
    program = schools(dist.Normal)
    with fresh(program, (Y,)):
        centring = Centring.of(Density.of(program, (Y,)))
        first = centring.at(centring.all_at(0.25)).batched(4)
        monkeypatch.setattr(Density, "_trace", lambda _: pytest.fail("traced again"))
        second = centring.at(centring.all_at(0.75)).batched(4)
        u = torch.ones(4, 6, dtype=torch.float64)
        assert not torch.equal(first(u)[0], second(u)[0])
