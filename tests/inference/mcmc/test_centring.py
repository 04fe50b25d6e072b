"""A funnel is left by the program's own draws, in the coordinates that are best for each element."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc
from inference.mcmc.centring import best_centred

F = torch.float64
GENERATOR = torch.Generator().manual_seed(0)
Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=F)
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=F)
ROWS = torch.tensor([1] * 10 + [200] * 3)  # in each group
GROUP = torch.repeat_interleave(torch.arange(13), ROWS)
VALUES = torch.randn(13, generator=GENERATOR, dtype=F)[GROUP] + torch.randn(len(GROUP), generator=GENERATOR, dtype=F)


def schools(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def groups(group, y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(2.0))
    with pyro.plate("groups", 13):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(theta[group], 1.0), obs=y)


def test_each_element_gets_the_coordinate_in_which_it_is_gaussian():
    scale = torch.randn(4000, 1, generator=GENERATOR, dtype=F).exp().expand(-1, 3)
    z = torch.randn(4000, 3, generator=GENERATOR, dtype=F)
    x = torch.stack([scale[:, 0] * z[:, 0], z[:, 1], z[:, 2]], 1)  # only the first is as its prior says
    known = torch.tensor([False, True, True])
    grads = torch.where(known, -z, -z / scale)
    for now in (1.0, 0.0, 0.5):
        c = torch.full((3,), now, dtype=F)
        here, slope = scale ** (now - 1) * x, scale ** (1 - now) * grads
        found = best_centred(here, slope, torch.zeros_like(x), scale, c)
        assert found.tolist() == [0.0, 1.0, 1.0]
    still = best_centred(x, grads, torch.zeros_like(x), torch.ones_like(scale), torch.full((3,), 0.5, dtype=F))
    assert still.tolist() == [0.5] * 3  # of a site without a latent scale


def test_a_centred_program_is_sampled_as_well_as_one_written_non_centred():
    fit = mcmc.fit(schools, Y, SIGMA, seed=1)
    assert fit.info["centred"]["theta"] < 0.2
    assert fit.diagnose().ok, fit.diagnose()
    assert not fit.stats["diverging"].any()
    assert set(fit.draws) == {"mu", "tau", "theta"}
    table = fit.summary()
    assert table["r_hat"].max() < 1.01
    # posteriordb, eight_schools_noncentered: reference means and sds
    for name, mean, sd in (("mu", 4.41, 3.31), ("tau", 3.60, 3.22), ("theta[0]", 6.19, 5.60)):
        assert abs(table["mean"][name] - mean) / sd < 0.06
        assert 0.93 < table["sd"][name] / sd < 1.07


def test_elements_of_one_site_are_centred_where_data_are_many():
    fit = mcmc.fit(groups, GROUP, VALUES, seed=1, num_chains=32, num_samples=200, compile=False)
    centred = fit.state["centred"][2:]
    assert (centred[ROWS == 200] == 1).all()
    assert (centred[ROWS == 1] <= 0.5).all()
    assert fit.diagnose().ok, fit.diagnose()


@pytest.mark.parametrize("centred", [True, False])
def test_the_user_s_choice_is_kept(centred):
    fit = mcmc.fit(schools, Y, SIGMA, centred=centred, num_chains=8, num_samples=50, num_warmup=50, compile=False)
    assert fit.info["centred"] == ({} if centred else {"theta": 0.0})


def test_a_run_in_learned_coordinates_is_extended_and_resumed_bit_for_bit(tmp_path):
    options = {"num_chains": 8, "num_warmup": 30, "compile": False, "seed": 2}
    whole = mcmc.fit(groups, GROUP, VALUES, num_samples=60, **options)
    half = mcmc.fit(groups, GROUP, VALUES, num_samples=30, checkpoint=tmp_path, **options)
    assert 0 < half.info["centred"]["theta"] < 1
    resumed = mcmc.fit(groups, GROUP, VALUES, num_samples=60, checkpoint=tmp_path, **options)
    for name, value in whole.draws.items():
        assert torch.equal(half.extend(30).draws[name], value)
        assert torch.equal(resumed.draws[name], value)
