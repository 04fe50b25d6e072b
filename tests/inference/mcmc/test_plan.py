"""What the user did not say is decided by cost; what he said wrongly is refused before anything is computed."""

from types import SimpleNamespace

import pytest

from inference import mcmc
from inference.mcmc.plan import DATA, TOGETHER, complete, plan
from inference.optimum.blocks import BUDGET

OPEN = {
    "seed": 0,
    "num_samples": None,
    "num_warmup": None,
    "num_chains": None,
    "kernel": "auto",
    "target_accept_prob": 0.8,
    "max_tree_depth": 10,
    "init": "pathfinder",
    "centred": "auto",
    "compile": "auto",
    "save_warmup": False,
}


def forbidden():
    raise AssertionError("the program must not be run")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_samples", 0, "num_samples must be at least 1; got 0"),
        ("num_chains", -2, "num_chains must be at least 1; got -2"),
        ("num_warmup", -1, "num_warmup must not be negative; got -1"),
        ("target_accept_prob", 1.0, "target_accept_prob must lie between 0 and 1; got 1.0"),
        ("target_accept_prob", float("nan"), "target_accept_prob must lie between 0 and 1; got nan"),
        ("max_tree_depth", 0, "max_tree_depth must be at least 1; got 0"),
        ("kernel", "NUTS", "no kernel 'NUTS'; there are: auto, hmc, chees, nuts, mams, nutpie, gibbs"),
        ("init", "zero", "init is 'pathfinder' or 'uniform'; got 'zero'"),
        ("centred", "yes", "centred is True, False or 'auto'; got 'yes'"),
        ("compile", "yes", "compile is True, False or 'auto'; got 'yes'"),
        ("target_ess", 0, "target_ess must be positive; got 0"),
        ("timeout", -1.0, "timeout must be positive; got -1.0"),
        ("workers", 0, "workers is a number of processes, or -1 for one a core; got 0"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(option, value, message):
    with pytest.raises(ValueError) as error:
        mcmc.fit(forbidden, **{option: value})
    assert str(error.value) == message


def decided(cost, dim=10, **options):
    return complete(plan(**OPEN | options), SimpleNamespace(cost=cost, dim=dim))


@pytest.mark.parametrize(
    ("cost", "chains", "samples", "warmup"),
    [(1, 256, 500, 250), (BUDGET // 256, 256, 500, 250), (BUDGET // 33, 32, 500, 250), (BUDGET, 4, 1000, 600)],
)
def test_cheap_gradients_get_many_short_chains(cost, chains, samples, warmup):
    found = decided(cost)
    assert (found.num_chains, found.num_samples, found.num_warmup) == (chains, samples, warmup)
    assert found.kernel == "hmc"


def test_many_coordinates_that_data_outnumber_get_steps_of_one_length():
    assert decided(DATA * 50, dim=50).kernel == "mams"
    assert decided(DATA * 50 - 1, dim=50).kernel == "hmc", "a posterior that data do not shape alone"
    assert decided(DATA * 19, dim=19).kernel == "hmc"
    assert decided(DATA * 50, dim=50, kernel="hmc").kernel == "hmc"


def test_what_was_asked_for_is_done():
    found = decided(1, num_chains=4096, num_samples=7, num_warmup=0, kernel="nuts")
    assert (found.num_chains, found.num_samples, found.num_warmup, found.kernel) == (4096, 7, 0, "nuts")
    assert found.warmup_chains == 4096


def test_few_chains_adapt_together_with_others_where_those_are_cheap():
    assert decided(1, num_chains=4).warmup_chains == TOGETHER
    assert decided(1, num_chains=4).lanes == TOGETHER, "one compiled step serves all"
    assert decided(1, num_chains=4, kernel="nuts").lanes == 4, "where each lane may wait for the slowest"
    assert decided(10_000, num_chains=4).lanes == 4, "where lanes cost"
    assert decided(BUDGET, num_chains=4).warmup_chains == 4
    assert decided(1, num_chains=4).num_samples == 1000
    assert decided(1, kernel="nutpie").warmup_chains == decided(1, kernel="nutpie").num_chains == 4
    assert decided(10_000, num_chains=4).warmup_calls < decided(1, num_chains=4).warmup_calls
