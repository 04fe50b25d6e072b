"""Pictures of borders between classes, and of profile likelihoods: what is on their axes is what was computed."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mode, plots
from inference.base import Unsupported
from inference.information import curve, ellipse, profile, region

pytestmark = pytest.mark.usefixtures("double_precision")


def rates(x):
    rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Exponential(rate), obs=x)


def test_the_border_is_where_two_classes_are_equally_likely():
    x = torch.randn(60, 2)
    label = (x[:, 0] > 0.3).long()

    def predict(rows):
        one = (4 * (rows[:, 0] - 0.3)).sigmoid()
        return torch.stack([1 - one, one], -1)

    figure = plots.regions(
        {"a": predict, "b": predict}, x, label, names=("width (cm)", "height (cm)"), classes=["no", "yes"]
    )
    left, right = figure.axes
    assert left.get_xlabel() == "width (cm)"
    assert right.get_title() == "b"
    border = np.concatenate([path.vertices for path in left.collections[0].get_paths()])
    assert np.abs(border[:, 0] - 0.3).max() < 0.02
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no", "yes"]
    assert sum(len(c.get_offsets()) for c in left.collections[-2:]) == 60


def test_the_profile_of_a_rate_is_its_likelihood():
    x = torch.distributions.Exponential(2.0).sample((15,))
    fit = mode.fit(rates, x, prior=False)
    values, falls = curve(fit, "rate", num_points=9)
    exact = -(15 * values.log() - values * x.sum())
    torch.testing.assert_close(falls, exact - exact[4], rtol=0, atol=1e-6)
    low, high = profile(fit, "rate")
    ends = torch.tensor([low, high])
    fallen = 15 * float(fit.draws["rate"].log()) - 15 - (15 * ends.log() - ends * x.sum())
    torch.testing.assert_close(fallen, torch.full((2,), 1.959964**2 / 2), rtol=0, atol=1e-4)
    figure = plots.profiles(fit, ["rate"], names=["rate (1/s)"])
    (axis,) = figure.axes
    assert axis.get_xlabel() == "rate (1/s)"
    assert axis.get_title(loc="left").startswith(f"95%: {low:.3g} to {high:.3g}")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["profile", "parabola (Wald)"]


def durations(x):
    shape = pyro.sample("shape", dist.LogNormal(0.0, 2.0))
    scale = pyro.sample("scale", dist.LogNormal(3.0, 2.0))
    drift = pyro.sample("drift", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Gamma(shape, 1 / scale), obs=x)
        pyro.sample("late", dist.Normal(drift, 1.0), obs=0 * x)


def test_a_joint_profile_is_the_likelihood_of_the_two_and_its_contours_are_the_regions():
    x = torch.distributions.Gamma(2.0, torch.tensor(0.1)).sample((25,))
    fit = mode.fit(durations, x, prior=False)
    shape, scale, fall = region(fit, "shape", "scale", num_points=15)
    exact = dist.Gamma(shape[..., None], 1 / scale[..., None]).log_prob(x).sum(-1)
    torch.testing.assert_close(fall, exact[7, 7] - exact, rtol=0, atol=1e-6)
    assert (shape[:, 0] == shape[:, 1]).all()
    around = torch.stack(ellipse(fit, "shape", "scale"))
    spread = (around.amax(1) - around.amin(1)) / 2
    errors = torch.stack([fit.standard_errors()[name] for name in ("shape", "scale")])
    torch.testing.assert_close(spread, errors * 5.991465**0.5, rtol=2e-3, atol=0)
    figure = plots.contours(fit, "shape", "scale", names=("shape", "scale (days)"), num_points=25)
    (axis,) = figure.axes
    border = axis.collections[0].get_paths()[1].vertices  # 95%
    edge = dist.Gamma(torch.tensor(border[:, :1]), 1 / torch.tensor(border[:, 1:])).log_prob(x).sum(-1)
    assert (exact[7, 7] - edge - 2.9957).abs().max() < 0.15
    assert axis.get_ylabel() == "scale (days)"
    with pytest.raises(Unsupported, match="shape and shape are functions of one another"):
        region(fit, "shape", "shape")
