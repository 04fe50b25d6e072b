"""A learned parameter is the learned one wherever a fit is looked at."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from inference import svi
from inference.pointwise import pointwise

TRUE_SCALE = 0.1


def program(y: Tensor) -> None:
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(loc, scale), obs=y)


def test_prediction_and_log_likelihood_read_what_was_learned():
    generator = torch.Generator().manual_seed(0)
    y = 5.0 + TRUE_SCALE * torch.randn(200, generator=generator, dtype=torch.float64)
    fit = svi.fit(program, y, num_steps=600, lr=0.05, num_samples=20, seed=0)
    assert abs(float(fit.predict()["y"].std(-1).mean()) / TRUE_SCALE - 1) < 0.2
    score = pointwise(fit).log_likelihood["y"]
    expected = -math.log(TRUE_SCALE * math.sqrt(2 * math.pi * math.e))
    assert abs(float(score.mean()) - expected) < 0.2
