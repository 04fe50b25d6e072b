"""The posteriors in PyMC."""

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import ordered


def eight_schools(data: Any) -> None:
    mu = pm.Normal("mu", 0.0, 5.0)
    tau = pm.HalfCauchy("tau", 5.0)
    theta_trans = pm.Normal("theta_trans", 0.0, 1.0, shape=8)
    pm.Normal("y", mu + tau * theta_trans, data["sigma"], observed=data["y"])


def kidiq(data: Any) -> None:
    hs, iq = data["mom_hs"], data["mom_iq"]
    beta = pm.Flat("beta", shape=4)
    sigma = pm.HalfCauchy("sigma", 2.5)
    mean = beta[0] + beta[1] * hs + beta[2] * iq + beta[3] * hs * iq
    pm.Normal("kid_score", mean, sigma, observed=data["kid_score"])


def low_dim_gauss_mix(data: Any) -> None:
    mu = pm.Normal("mu", 0.0, 2.0, shape=2, transform=ordered, initval=np.array([-1.0, 1.0]))
    sigma = pm.HalfNormal("sigma", 2.0, shape=2)
    theta = pm.Beta("theta", 5.0, 5.0)
    pm.NormalMixture("y", pt.stack([theta, 1 - theta]), mu, sigma=sigma, observed=data["y"])


def arK(data: Any) -> None:  # noqa: N802
    y, order = data["y"], 5
    alpha = pm.Normal("alpha", 0.0, 10.0)
    beta = pm.Normal("beta", 0.0, 10.0, shape=order)
    sigma = pm.HalfCauchy("sigma", 2.5)
    lags = np.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], -1)
    pm.Normal("y", alpha + pt.dot(lags, beta), sigma, observed=y[order:])


def gp_regr(data: Any) -> None:
    x = data["x"]
    rho = pm.Gamma("rho", 25.0, 4.0)
    alpha = pm.HalfNormal("alpha", 2.0)
    sigma = pm.HalfNormal("sigma", 1.0)
    cov = alpha**2 * pt.exp(-0.5 * ((x[:, None] - x) / rho) ** 2) + sigma * pt.eye(len(x))
    pm.MvNormal("y", np.zeros(len(x)), cov=cov, observed=data["y"])


def mixture(data: Any) -> None:
    x, center, sd = data["x"], data["center"], data["sd"]
    weights = pm.Dirichlet("weights", np.full(2, data["concentration"]))
    start = center[0] + sd[0] * np.array([-0.5, 0.5])
    first = pm.Normal("first", center[0], sd[0], shape=2, transform=ordered, initval=start)
    second = pm.Normal("second", center[1], sd[1], shape=2)
    precision = pm.Gamma("precision", data["shape"], data["rate"], shape=(2, 2))
    below = pm.Normal("off_diagonal", 0.0, data["below"], shape=(2, 1))
    root = pt.sqrt(precision)
    gap = x[:, 0, None] - first, x[:, 1, None] - second  # (N, K) each
    white = root[:, 0] * gap[0], below[:, 0] * gap[0] + root[:, 1] * gap[1]
    score = pt.log(weights) + pt.log(root).sum(-1) - 0.5 * (white[0] ** 2 + white[1] ** 2)
    pm.Potential("x", pt.logaddexp(score[:, 0], score[:, 1]).sum())


def poisson_glm(data: Any) -> None:
    intercept = pm.Normal("intercept", 0.0, 1.0)
    beta = pm.Normal("beta", 0.0, 1.0, shape=data["X"].shape[1])
    pm.Poisson("y", pt.exp(intercept + pt.dot(data["X"], beta)), observed=data["y"].astype(int))


def bnn(data: Any) -> None:
    units = data["units"]
    slope = pm.Normal("slope", 0.0, 2.0, shape=units)
    shift = pm.Normal("shift", 0.0, 2.0, shape=units)
    out = pm.Normal("out", 0.0, units**-0.5, shape=units)
    level = pm.Normal("level", 0.0, 1.0)
    sigma = pm.HalfNormal("sigma", 1.0)
    mean = pt.dot(pt.tanh(data["x"][:, None] * slope + shift), out) + level
    pm.Normal("y", mean, sigma, observed=data["y"])
