"""A function over many draws at once."""

import pyro.distributions as dist
import torch

from inference.tracing.over_draws import over_draws


def test_a_draw_that_torch_does_not_batch_inside_warns_nobody():
    scale = torch.linspace(1.0, 2.0, 50, dtype=torch.float64)
    torch.manual_seed(0)
    (found,) = over_draws(lambda draw: {"y": dist.Gamma(3.0, draw["scale"])()}, {"scale": scale}, random=True, chunk=50)
    assert found["y"].shape == (50,)
    assert found["y"].unique().numel() == 50
    assert (found["y"] > 0).all()
