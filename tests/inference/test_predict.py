"""Predictive draws have the distribution that theory gives them."""

from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference.base import Fit
from inference.predict import assignments, predict, prior_predictive, simulate
from ppmodels.base import Data


@dataclass(frozen=True)
class Mixture:
    """Two groups of known width, with a slope on what is given."""

    components: int = 2
    observed: ClassVar[tuple[str, ...]] = ("x",)

    def inputs(self, rows):
        return {"dose": torch.linspace(0, 1, rows, dtype=torch.float64)}

    def model(self, data):
        with pyro.plate("components", self.components):
            loc = pyro.sample("loc", dist.Normal(torch.tensor(0.0), 5.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with data.plate():
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.25, 0.75])), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(loc[z] + slope * data.given["dose"], 0.1))


def normal(y, sigma=1.0):
    loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    pyro.deterministic("twice", 2 * loc)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(loc, sigma), obs=y)


def local(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y), subsample_size=4) as rows:
        shift = pyro.sample("shift", dist.Normal(0.0, 0.01))
        pyro.sample("y", dist.Normal(loc + shift, 0.01), obs=y[rows])


def looped(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(float(loc), 0.1), obs=y)


def test_simulate_gives_data_and_the_latents_that_made_them():
    data, latents = simulate(Mixture(), 50, seed=3)
    assert data.rows == 50
    assert set(latents) == {"loc", "slope", "z"}
    mean = latents["loc"][latents["z"].long()] + latents["slope"] * data.given["dose"]
    assert (data.observed["x"] - mean).abs().max() < 0.6
    again, _ = simulate(Mixture(), 50, seed=3)
    assert torch.equal(again.observed["x"], data.observed["x"])
    other, _ = simulate(Mixture(), 50, seed=4)
    assert not torch.equal(other.observed["x"], data.observed["x"])


def test_simulate_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    simulate(Mixture(), 5, seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_prior_predictive_has_the_prior_s_moments_and_shapes():
    y = torch.zeros(6, dtype=torch.float64)
    draws = prior_predictive(normal, y, sigma=2.0, num_samples=20_000, seed=1)
    assert {k: tuple(v.shape) for k, v in draws.items()} == {
        "loc": (1, 20_000), "twice": (1, 20_000), "y": (1, 20_000, 6)
    }  # fmt: skip
    assert draws["y"].dtype == torch.float64
    assert torch.equal(draws["twice"], 2 * draws["loc"])
    assert abs(float(draws["y"].std()) - 13**0.5) < 0.1
    rest = draws["y"] - draws["loc"][..., None]
    assert abs(float(rest.std()) - 2.0) < 0.03
    assert abs(float(torch.corrcoef(rest[0].T)[0, 1])) < 0.03  # rows are not copies of one another


def test_predict_conditions_on_each_draw():
    y = torch.zeros(6, dtype=torch.float64)
    loc = torch.arange(6, dtype=torch.float64).reshape(2, 3) * 100
    drawn = predict(Fit(normal, (y,), {"sigma": 0.5}, "hand", {"loc": loc}))
    assert drawn.keys() == {"y"}
    assert drawn["y"].shape == (2, 3, 6)
    residual = drawn["y"] - loc[..., None]
    assert residual.abs().max() < 3
    assert residual.std() > 0.2


def test_noise_is_not_that_of_the_draws():
    """Draws made of the same seed's normals, as many as there are rows: noise must not repeat their numbers."""
    draws = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))

    def shifted(y):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=y)

    fit = Fit(shifted, (torch.zeros(3),), {}, "laplace", {"loc": draws[None]})
    for seed in (0, 1):
        noise = predict(fit, seed=seed)["y"][0] - draws
        assert torch.corrcoef(torch.cat([noise, draws], 1).T)[:3, 3:].abs().max() < 5 / 2000**0.5
    assert predict(fit)["y"].var(1).mean().item() == pytest.approx(2.0, rel=0.05)


def test_same_seed_same_prediction():
    y = torch.zeros(6, dtype=torch.float64)
    fit = Fit(normal, (y,), {}, "hand", {"loc": torch.zeros(1, 4, dtype=torch.float64)})
    assert torch.equal(predict(fit, seed=1)["y"], predict(fit, seed=1)["y"])
    assert not torch.equal(predict(fit, seed=1)["y"], predict(fit, seed=2)["y"])


def test_a_model_of_the_collection_predicts_new_rows():
    data, truth = simulate(Mixture(), 40, seed=0)
    draws = {k: truth[k].expand(2, 30, *truth[k].shape) for k in ("loc", "slope")}
    fit = Fit(Mixture(), (data,), {}, "hand", draws)
    assert predict(fit)["x"].shape == (2, 30, 40)
    new = Data(7, {"dose": torch.full((7,), 100.0, dtype=torch.float64)})
    drawn = predict(fit, new)["x"]
    assert drawn.shape == (2, 30, 7)
    centre = (drawn - 100 * truth["slope"])[..., None] - truth["loc"]
    share = (centre.abs().argmin(-1) == 1).double().mean()
    assert abs(float(share) - 0.75) < 0.1  # new rows draw their own group
    with pytest.raises(TypeError, match="plain program"):
        predict(Fit(normal, (), {}, "hand", draws), data)


def test_assignments_recover_the_groups():
    data, truth = simulate(Mixture(), 40, seed=5)
    draws = {k: truth[k].expand(1, 9, *truth[k].shape) for k in ("loc", "slope")}
    q = assignments(Fit(Mixture(), (data,), {}, "hand", draws))["z"]
    assert q.shape == (40, 2)
    torch.testing.assert_close(q.sum(-1), torch.ones(40, dtype=q.dtype))
    assert (q.argmax(-1) == truth["z"]).double().mean() > 0.9


def test_sub_sampled_rows_are_all_predicted_with_their_own_latents():
    y = torch.zeros(10, dtype=torch.float64)
    shift = torch.arange(10.0, dtype=torch.float64).expand(1, 5, 10)
    drawn = predict(Fit(local, (y,), {}, "hand", {"loc": torch.zeros(1, 5, dtype=torch.float64), "shift": shift}))
    assert (drawn["y"] - shift).abs().max() < 0.1
    without = predict(Fit(local, (y,), {}, "hand", {"loc": torch.full((1, 5), 3.0, dtype=torch.float64)}))
    assert (without["y"] - 3).abs().max() < 0.2


def test_a_program_that_cannot_be_batched_is_looped():
    loc = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    drawn = predict(Fit(looped, (torch.zeros(4, dtype=torch.float64),), {}, "hand", {"loc": loc}))
    assert (drawn["y"] - loc[..., None]).abs().max() < 0.6
