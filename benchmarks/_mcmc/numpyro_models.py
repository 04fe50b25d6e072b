"""The posteriors in NumPyro."""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints


def eight_schools(data: Any) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    theta_trans = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
    numpyro.sample("y", dist.Normal(mu + tau * theta_trans, data["sigma"]), obs=data["y"])


def kidiq(data: Any) -> None:
    hs, iq = data["mom_hs"], data["mom_iq"]
    beta = numpyro.sample("beta", dist.ImproperUniform(constraints.real, (), (4,)))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    mean = beta[0] + beta[1] * hs + beta[2] * iq + beta[3] * hs * iq
    numpyro.sample("kid_score", dist.Normal(mean, sigma), obs=data["kid_score"])


def low_dim_gauss_mix(data: Any) -> None:
    mu = numpyro.sample("mu", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    numpyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    weights = dist.Categorical(probs=jnp.stack([theta, 1 - theta]))
    numpyro.sample("y", dist.MixtureSameFamily(weights, dist.Normal(mu, sigma)), obs=data["y"])


def arK(data: Any) -> None:  # noqa: N802
    y, order = data["y"], 5
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([order]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    lags = jnp.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], -1)
    numpyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y[order:])


def gp_regr(data: Any) -> None:
    x = data["x"]
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    cov = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2) + sigma * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), cov), obs=data["y"])


def mixture(data: Any) -> None:
    x, center, sd = data["x"], data["center"], data["sd"]
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(2, data["concentration"])))
    first = numpyro.sample("first", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    numpyro.factor("first_prior", dist.Normal(center[0], sd[0]).log_prob(first).sum())
    second = numpyro.sample("second", dist.Normal(center[1], sd[1]).expand([2]).to_event(1))
    gamma = dist.Gamma(data["shape"], data["rate"]).expand([2, 2])
    precision = numpyro.sample("precision", gamma.to_event(2))
    below = numpyro.sample("off_diagonal", dist.Normal(0.0, data["below"]).expand([2, 1]).to_event(2))
    root = jnp.sqrt(precision)
    gap = x[:, 0, None] - first, x[:, 1, None] - second  # (N, K) each
    white = root[:, 0] * gap[0], below[:, 0] * gap[0] + root[:, 1] * gap[1]
    score = jnp.log(weights) + jnp.log(root).sum(-1) - 0.5 * (white[0] ** 2 + white[1] ** 2)
    numpyro.factor("x", jnp.logaddexp(score[:, 0], score[:, 1]).sum())


def poisson_glm(data: Any) -> None:
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 1.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([data["X"].shape[1]]).to_event(1))
    numpyro.sample("y", dist.Poisson(jnp.exp(intercept + data["X"] @ beta)), obs=data["y"])


def bnn(data: Any) -> None:
    units = data["units"]
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0).expand([units]).to_event(1))
    shift = numpyro.sample("shift", dist.Normal(0.0, 2.0).expand([units]).to_event(1))
    out = numpyro.sample("out", dist.Normal(0.0, units**-0.5).expand([units]).to_event(1))
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    mean = jnp.tanh(data["x"][:, None] * slope + shift) @ out + level
    numpyro.sample("y", dist.Normal(mean, sigma), obs=data["y"])
