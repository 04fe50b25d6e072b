"""Pyro programs that a density must get right: each function returns (program, args)."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor

F = torch.float64


def eight_schools():
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=F)
    sigma = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=F)

    def program(y: Tensor, sigma: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", len(y)):
            theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(mu + tau * theta, sigma), obs=y)

    return program, (y, sigma)


def reparametrised():
    _, args = eight_schools()

    def centred(y: Tensor, sigma: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", len(y)):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("y", dist.Normal(theta, sigma), obs=y)

    return pyro.poutine.reparam(centred, {"theta": LocScaleReparam(0.0)}), args


def lkj():
    x = torch.linspace(-1, 1, 24, dtype=F).reshape(8, 3).sin()

    def program(x: Tensor) -> None:
        scale = pyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
        corr = pyro.sample("corr", dist.LKJCholesky(3, 2.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.MultivariateNormal(torch.zeros(3), scale_tril=scale[:, None] * corr), obs=x)

    return program, (x,)


def markov_chain():
    y = torch.tensor([0.1, 0.3, 2.1, 1.8, 0.2, 2.2], dtype=F)

    def program(y: Tensor) -> None:
        move = pyro.sample("move", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
        loc = pyro.sample("loc", dist.Normal(torch.tensor([0.0, 2.0]), 1.0).to_event(1))
        z = 0
        for t in pyro.markov(range(len(y))):
            z = pyro.sample(f"z_{t}", dist.Categorical(move[z]), infer={"enumerate": "parallel"})
            pyro.sample(f"y_{t}", dist.Normal(loc[z], 0.5), obs=y[t])

    return program, (y,)


def gaussian_hmm():
    y = torch.linspace(0, 3, 12, dtype=F).sin()[:, None]

    def program(y: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.5, 0.3))
        q = pyro.sample("q", dist.HalfNormal(1.0))
        one = torch.eye(1)
        start = dist.MultivariateNormal(torch.zeros(1), one)
        move = dist.MultivariateNormal(torch.zeros(1), q * one)
        read = dist.MultivariateNormal(torch.zeros(1), 0.1 * one)
        pyro.sample("y", dist.GaussianHMM(start, a * one, move, one, read, duration=len(y)), obs=y)

    return program, (y,)


def dirichlet():
    counts = torch.tensor([3.0, 5.0, 1.0], dtype=F)

    def program(counts: Tensor) -> None:
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        pyro.sample("counts", dist.Multinomial(9, p), obs=counts)

    return program, (counts,)


def gaussian_process():
    x = torch.linspace(-1, 1, 9, dtype=F)

    def program(x: Tensor, y: Tensor) -> None:
        length = pyro.sample("length", dist.Gamma(4.0, 4.0))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        gram = torch.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + (noise + 1e-4) * torch.eye(len(x))
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x)), gram), obs=y)

    return program, (x, (3 * x).sin())


def mixture():
    x = torch.tensor([-2.0, -1.7, 1.9, 2.3, 2.0], dtype=F)

    def program(x: Tensor) -> None:
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("components", 2):
            loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)

    return program, (x,)


def regression():
    X = torch.linspace(-2, 2, 60, dtype=F).reshape(20, 3).cos()

    def program(X: Tensor, y: Tensor) -> None:
        b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("rows", len(X)):
            pyro.sample("y", dist.Poisson((X @ b).exp()), obs=y)

    return program, (X, torch.arange(20, dtype=F) % 4)


def gamma_poisson():
    counts = torch.tensor([1.0, 4.0, 2.0], dtype=F)

    def program(counts: Tensor) -> None:
        shape = pyro.sample("shape", dist.LogNormal(0.0, 0.5))
        rate = pyro.sample("rate", dist.Exponential(1.0))
        with pyro.plate("rows", len(counts)):
            pyro.sample("y", dist.GammaPoisson(shape, rate), obs=counts)

    return program, (counts,)


def uniform_within_uniform():
    """A support that depends on another site."""

    def program(y: Tensor) -> None:
        top = pyro.sample("top", dist.Uniform(1.0, 3.0))
        x = pyro.sample("x", dist.Uniform(0.0, top))
        pyro.sample("y", dist.Normal(x, 0.2), obs=y)

    return program, (torch.tensor(0.7, dtype=F),)


def ordered_mixture():
    y = torch.tensor([-1.0, -1.2, 1.4, 1.1], dtype=F)

    def program(y: Tensor) -> None:
        ordered = dist.TransformedDistribution(
            dist.Normal(0.0, 1.0).expand([2]), pyro.distributions.transforms.OrderedTransform()
        )
        mu = pyro.sample("mu", ordered.mask(False))
        theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
        weights = dist.Categorical(torch.stack([theta, 1 - theta]))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.MixtureSameFamily(weights, dist.Normal(mu, 1.0)), obs=y)

    return program, (y,)


TRACEABLE = [
    eight_schools,
    reparametrised,
    lkj,
    markov_chain,
    gaussian_hmm,
    dirichlet,
    gaussian_process,
    mixture,
    regression,
    gamma_poisson,
    uniform_within_uniform,
    ordered_mixture,
]
