"""The eager density against densities written by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from inference.base import Unsupported, fresh
from inference.density import Density

F = torch.float64


def density_of(program, *args, **options):
    """The program's log density as a function of x, on float64."""
    with fresh(program, args) as own:
        density = Density.of(own, args, **options)
        at = [density._points(3, seed=1), *[density.value_and_grad(x)[0] for x in density._points(3, seed=1)]]
    return density, at[0], torch.stack(at[1:])


def normal(x, loc=0.0, scale=1.0):
    return -0.5 * ((x - loc) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def test_positive():
    _, x, value = density_of(lambda: pyro.sample("s", dist.Exponential(2.0)))
    torch.testing.assert_close(value, (math.log(2) - 2 * x.exp() + x)[:, 0])


def test_interval():
    _, x, value = density_of(lambda: pyro.sample("u", dist.Uniform(1.0, 4.0)))
    p = torch.sigmoid(x)[:, 0]
    torch.testing.assert_close(value, p.log() + (1 - p).log())  # 1 / 3 and 3 cancel


def test_support_that_hangs_on_another_site():
    def program():
        top = pyro.sample("top", dist.Exponential(1.0))
        pyro.sample("x", dist.Uniform(0.0, top))

    _, x, value = density_of(program)
    top, p = x[:, 0].exp(), torch.sigmoid(x[:, 1])
    torch.testing.assert_close(value, -top + x[:, 0] + p.log() + (1 - p).log())


def test_simplex():
    _, x, value = density_of(lambda: pyro.sample("p", dist.Dirichlet(torch.tensor([2.0, 3.0, 1.5]))))
    first = torch.sigmoid(x[:, 0] - math.log(2))
    second = torch.sigmoid(x[:, 1])
    p = torch.stack([first, (1 - first) * second, (1 - first) * (1 - second)], -1)
    jacobian = (first * (1 - first)).log() + (second * (1 - second) * (1 - first)).log()
    alpha = torch.tensor([2.0, 3.0, 1.5], dtype=F)
    log_density = ((alpha - 1) * p.log()).sum(-1) + alpha.sum().lgamma() - alpha.lgamma().sum()
    torch.testing.assert_close(value, log_density + jacobian)


def test_ordered():
    def program():
        order = dist.transforms.OrderedTransform()
        pyro.sample("mu", dist.TransformedDistribution(dist.Normal(0.0, 1.0).expand([3]).to_event(1), [order]))

    _, x, value = density_of(program)  # the transform of the site is that of its support: the Jacobians cancel
    torch.testing.assert_close(value, normal(x).sum(-1))


def test_without_jacobian():
    _, x, value = density_of(lambda: pyro.sample("s", dist.Exponential(2.0)), jacobian=False)
    torch.testing.assert_close(value, (math.log(2) - 2 * x.exp())[:, 0])


def test_plates_masks_and_scales():
    y = torch.tensor([0.5, -1.0, 2.0], dtype=F)

    def program(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("rows", 3), pyro.poutine.mask(mask=y > 0), pyro.poutine.scale(scale=3.0):
            pyro.sample("y", dist.Normal(mu, 0.5), obs=y)

    _, x, value = density_of(program, y)
    rows = normal(y, x, 0.5) * (y > 0)
    torch.testing.assert_close(value, normal(x[:, 0], 0.0, 2.0) + 3 * rows.sum(-1))


def test_summed_out_sites():
    y = torch.tensor([0.5, -1.0, 2.0], dtype=F)

    def program(y):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Bernoulli(p))
            pyro.sample("y", dist.Normal(2 * z - 1, 1.0), obs=y)

    density, x, value = density_of(program, y)
    p = torch.sigmoid(x)
    mixture = torch.log((1 - p) * normal(y, -1.0).exp() + p * normal(y, 1.0).exp()).sum(-1)
    torch.testing.assert_close(value, mixture + (6 * p**2 * (1 - p) ** 2).log()[:, 0])
    assert density.layout.enumerated == ("z",)


def test_markov_chain_is_the_forward_algorithm():
    y = torch.tensor([0.1, 1.9, 0.3, 2.2], dtype=F)
    move = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=F)

    def program(y):
        loc, z = pyro.sample("loc", dist.Normal(0.0, 3.0)), 0
        for t in pyro.markov(range(len(y))):
            z = pyro.sample(f"z_{t}", dist.Categorical(move[z]), infer={"enumerate": "parallel"})
            pyro.sample(f"y_{t}", dist.Normal(loc * z, 0.5), obs=y[t])

    _, x, value = density_of(program, y)
    for at, found in zip(x[:, 0], value, strict=True):
        state = torch.tensor([1.0, 0.0], dtype=F)
        for row in y:
            state = (state @ move) * torch.stack([normal(row, 0 * at, 0.5), normal(row, at, 0.5)]).exp()
        torch.testing.assert_close(found, state.sum().log() + normal(at, 0.0, 3.0))


def test_improper_sites():
    def program(y):
        s = pyro.sample("s", dist.ImproperUniform(constraints.positive, (), ()))
        with pyro.plate("groups", 2):
            m = pyro.sample("m", dist.ImproperUniform(constraints.real_vector, (), (3,)))
        pyro.sample("y", dist.Normal(m.sum(), s), obs=y)

    density, x, value = density_of(program, torch.tensor(0.3, dtype=F))
    assert [site.shape for site in density.layout.sites] == [(), (2, 3)]
    scale = x[:, 0].exp()
    truth = -0.5 * ((0.3 - x[:, 1:].sum(-1)) / scale) ** 2 - 0.5 * math.log(
        2 * math.pi
    )  # log s and its Jacobian cancel
    torch.testing.assert_close(value, truth)


def test_latent_mixture():
    def program():
        parts = dist.Categorical(torch.tensor([0.3, 0.7]))
        with pyro.plate("rows", 2):
            pyro.sample("w", dist.MixtureSameFamily(parts, dist.Exponential(torch.tensor([1.0, 4.0]))))

    _, x, value = density_of(program)
    w = x.exp()
    truth = (0.3 * torch.exp(-w) + 0.7 * 4 * torch.exp(-4 * w)).log() + x
    torch.testing.assert_close(value, truth.sum(-1))


def test_dims_are_those_of_plates_and_of_the_site():
    def program():
        with pyro.plate("rows", 2, dim=-1):
            pyro.sample("a", dist.Normal(0.0, 1.0).expand([3]).to_event(1), infer={"event_dims": ("column",)})
            pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    density, _, _ = density_of(program)
    assert [site.dims for site in density.layout.sites] == [("rows", "column"), ("rows", "b_dim_1")]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (lambda: pyro.sample("count", dist.Poisson(3.0)), "'count' ~ Poisson is discrete without end"),
        (lambda: pyro.sample("x", dist.Normal(pyro.param("w", torch.zeros(())), 1.0)), "'w' is a parameter"),
        (lambda: pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(())), "no continuous latent site"),
    ],
)
def test_unsupported_says_which_site(program, words):
    with fresh(program) as own, pytest.raises(Unsupported, match=words):
        Density.of(own)
