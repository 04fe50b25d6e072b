"""nutpie over the traced density, where it is installed; a clear word where it is not."""

import sys

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc
from inference.base import Unsupported
from inference.mcmc import nutpie as adapter

OPTIONS = {"kernel": "nutpie", "num_chains": 3, "num_warmup": 150, "compile": False, "seed": 4}


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    return x, x @ torch.tensor([1.0, -2.0], dtype=torch.float64) + 0.5


@pytest.fixture(autouse=True)
def quiet():
    """Packages that nutpie imports warn of their own futures."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nutpie", None)
    with pytest.raises(Unsupported, match=r"ppmodels\[nutpie\]"):
        mcmc.fit(regression, *data(), **OPTIONS)


@pytest.mark.parametrize("goal", [{"target_ess": 100}, {"timeout": 1.0}, {"checkpoint": "run"}])
def test_goals_that_it_cannot_keep_are_refused(goal):
    with pytest.raises(Unsupported, match=next(iter(goal))):
        mcmc.fit(regression, *data(), **OPTIONS, **goal)


def test_the_posterior_of_a_regression():
    pytest.importorskip("nutpie")
    x, y = data()
    fit = mcmc.fit(regression, x, y, num_samples=1000, **OPTIONS)
    precision = x.mT @ x / 0.25 + torch.eye(2) / 100
    mean, sd = torch.linalg.solve(precision, x.mT @ y / 0.25), torch.linalg.inv(precision).diagonal().sqrt()
    draws = fit.draws["w"].flatten(0, 1)
    assert ((draws.mean(0) - mean).abs() / sd).max() < 0.1
    assert (draws.std(0) / sd - 1).abs().max() < 0.1
    assert fit.draws["w"].shape == (3, 1000, 2)
    assert fit.info["gradients"] > int(fit.stats["n_steps"].sum())


def test_statistics_have_the_names_of_every_other_kernel():
    pytest.importorskip("nutpie")
    fit = mcmc.fit(regression, *data(), num_samples=20, save_warmup=True, **OPTIONS)
    other = mcmc.fit(regression, *data(), kernel="nuts", num_chains=3, num_warmup=20, num_samples=20, compile=False)
    assert set(fit.stats) == set(other.stats)
    for name, value in fit.stats.items():
        assert value.shape == (3, 20)
        assert value.dtype == other.stats[name].dtype
    assert fit.warmup_draws["w"].shape == (3, 150, 2)
    assert fit.warmup_stats["lp"].shape == (3, 150)
    assert set(other.info) == set(fit.info)


def test_a_seed_decides_the_draws():
    pytest.importorskip("nutpie")
    one, same = (mcmc.fit(regression, *data(), num_samples=20, **OPTIONS) for _ in range(2))
    other = mcmc.fit(regression, *data(), num_samples=20, **OPTIONS | {"seed": 5})
    assert torch.equal(one.draws["w"], same.draws["w"])
    assert not torch.equal(one.draws["w"], other.draws["w"])


def test_the_adapter_does_not_hide_the_package():
    pytest.importorskip("nutpie")
    assert adapter._package().__name__ == "nutpie"
    assert adapter._package() is not adapter
