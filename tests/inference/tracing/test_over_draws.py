"""A function over many draws at once."""

import pyro.distributions as dist
import pytest
import torch

from inference.tracing.over_draws import over_draws


def test_a_draw_that_torch_does_not_batch_inside_warns_nobody():
    scale = torch.linspace(1.0, 2.0, 50, dtype=torch.float64)
    torch.manual_seed(0)
    (found,) = over_draws(lambda draw: {"y": dist.Gamma(3.0, draw["scale"])()}, {"scale": scale}, random=True, chunk=50)
    assert found["y"].shape == (50,)
    assert found["y"].unique().numel() == 50
    assert (found["y"] > 0).all()


def test_normals_are_drawn_in_one_batch_and_anew_for_each_draw():
    """torch fills an empty tensor in place for a normal, which `vmap` would refuse: 400 runs instead of two."""
    runs = []

    def noise(draw):
        runs.append(1)
        return {"y": dist.Normal(draw["loc"], 0.5).expand([300]).to_event(1)()}

    parts = list(over_draws(noise, {"loc": torch.arange(400.0)}, random=True))
    y = torch.cat([part["y"] for part in parts])
    assert len(runs) <= 1 + len(parts)
    residual = (y - torch.arange(400.0)[:, None]) / 0.5
    assert residual.std().item() == pytest.approx(1.0, abs=0.015)
    assert (residual.mean(1).abs() < 5 / 300**0.5).all()
    assert torch.corrcoef(residual)[0, 1:].abs().max() < 5 / 300**0.5
