"""Diagnoses of answers that are known to be right, or wrong in one way."""

import io
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from rich.console import Console

from inference.base import Fit
from inference.check import diagnose, render, simulation_based_calibration, summary, table
from tests.inference.programs import normal

Y = torch.linspace(-1, 1, 10, dtype=torch.float64)


def centred(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def exact_draws(y, shape):
    precision = 1 + len(y)
    return dist.Normal(y.sum() / precision, precision**-0.5).sample(shape)


def of(loc, method="mcmc", **fields):
    stats = fields.pop("stats", {"energy": torch.randn(loc.shape).double()} if method == "mcmc" else {})
    return Fit(normal, (Y,), {}, method, {"loc": loc}, stats=stats, **fields)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_nothing_speaks_against_independent_draws():
    diagnosis = diagnose(of(exact_draws(Y, (4, 500)), info={"converged": True}))
    assert diagnosis.ok
    assert diagnosis.findings == ()
    assert str(diagnosis) == "mcmc: nothing speaks against this answer"


def levels(diagnosis):
    return {(f.level, f.site, f.sentence.split(" ")[0]) for f in diagnosis.findings}


def test_chains_in_separate_modes_are_told_from_chains_that_are_slow():
    apart = torch.randn(4, 500).double() * 0.1 + torch.tensor([0.0, 0.0, 0.0, 1.0])[:, None]
    (finding, *_) = (f for f in diagnose(of(apart)).findings if "R-hat" in f.sentence)
    assert finding.level == "error"
    assert finding.site == "loc"
    assert "separate modes (3 near" in finding.sentence
    slow = (torch.randn(4, 500).double() * 0.03).cumsum(1)
    sentences = str(diagnose(of(slow)))
    assert "have not mixed" in sentences
    assert "bulk ESS" in sentences
    assert "separate modes" not in sentences


def test_chains_at_log_densities_of_their_own_are_told_apart():
    """As on yacht, where networks' predictions overlap and log densities do not: modes, or a way that is not over."""
    noise, energy = torch.randn(4, 100).double(), torch.randn(4, 100).double()

    def said(lp):
        return [
            f.sentence
            for f in diagnose(of(noise * 0.3, stats={"lp": lp, "energy": energy})).findings
            if "log d" in f.sentence
        ]

    high = torch.tensor([462.0, 374.0, 434.0, 440.0]).double()[:, None]
    (steady,) = said(high + 15 * noise)
    assert "from 37" in steady
    assert "none moves: they sit in separate modes" in steady
    (moving,) = said(high + 15 * noise + torch.tensor([[1.0], [0], [0], [0]]) * torch.linspace(-60, 60, 100).double())
    assert "1 of 4 are still on their way: warm up longer" in moving
    assert not said(440 + 15 * noise)


def test_many_short_chains_are_judged_by_nested_rhat():
    walk = torch.randn(256, 20).double()
    assert diagnose(of(walk * 0.3)).ok
    assert not diagnose(of(walk * 0.3 + torch.linspace(0, 3, 256)[:, None].double())).ok


def test_elements_are_named_by_their_labels():
    def program(y):
        with pyro.plate("group", 3):
            pyro.sample("loc", dist.Normal(0.0, 1.0))

    draws = torch.randn(4, 500, 3).double()
    draws[0, :, 2] += 3
    diagnosis = diagnose(Fit(program, (Y,), {}, "mcmc", {"loc": draws}, stats={"lp": draws[..., 0]}))
    assert {f.site for f in diagnosis.findings if "R-hat" in f.sentence} == {"loc[2]"}


def test_divergences_in_a_funnel_name_the_scale_the_site_and_the_plate():
    tau = (torch.randn(4, 500).double()).exp()
    theta = tau[..., None] * torch.randn(4, 500, 10).double()
    diverging = tau < tau.quantile(0.02)
    fit = Fit(
        centred, (Y,), {}, "mcmc", {"mu": torch.randn(4, 500).double(), "tau": tau, "theta": theta},
        stats={"diverging": diverging},
    )  # fmt: skip
    (finding,) = (f for f in diagnose(fit).findings if "diverge" in f.sentence)
    assert finding.level == "error"
    assert finding.site == "tau"
    assert finding.number == pytest.approx(0.02)
    assert "scale of plate 'schools'" in finding.sentence
    assert "write 'theta' non-centred" in finding.sentence
    anywhere = torch.zeros(4, 500, dtype=torch.bool)
    anywhere[1, ::100] = True
    (finding,) = diagnose(of(exact_draws(Y, (4, 500)), stats={"diverging": anywhere})).findings
    assert finding.level == "warning"
    assert "5 of 2000 draws diverge" in finding.sentence
    assert "target_accept_prob" in finding.sentence


def test_a_log_scale_is_a_neck_too_and_smaller_steps_are_advised_while_there_are_any():
    def funnel():
        v = pyro.sample("v", dist.Normal(0.0, 3.0))
        with pyro.plate("rows", 3):
            pyro.sample("x", dist.Normal(0.0, (v / 2).exp()))

    v = 3 * torch.randn(4, 500).double()
    x = (v / 2).exp()[..., None] * torch.randn(4, 500, 3).double()
    fit = Fit(funnel, (), {}, "mcmc", {"v": v, "x": x}, stats={"diverging": v < v.quantile(0.01)})
    (finding,) = (f for f in diagnose(fit).findings if "diverge" in f.sentence)
    assert finding.site == "v"
    assert "scale of plate 'rows'" in finding.sentence
    assert "write 'x' non-centred" in finding.sentence
    anywhere = torch.zeros(4, 500, dtype=torch.bool)
    anywhere[1, ::100] = True
    for now, advised in ((0.8, "from 0.8 to 0.95, or rep"), (0.95, "from 0.95 to 0.99, or rep"), (0.99, "): reparam")):
        run = of(exact_draws(Y, (4, 500)), stats={"diverging": anywhere}, info={"target_accept_prob": now})
        assert advised in str(diagnose(run))


def test_many_chains_in_two_modes_are_seen_though_every_group_has_both():
    apart = torch.randn(256, 100).double() + 10 * (-1.0) ** torch.arange(256).double()[:, None]
    (finding, *rest) = diagnose(of(apart)).findings
    assert finding.level == "error"
    assert "separate modes (128 near -10" in finding.sentence
    assert not any("times as long" in f.sentence for f in rest)


def test_a_chain_far_out_in_a_heavy_tail_is_no_mode():
    x = torch.randn(64, 200).double() + 1.5 * torch.randn(64, 1).double()
    x[3, 50:120] = 2000 * torch.rand(70).double()
    assert "separate modes" not in str(diagnose(of(x)))


def test_two_sites_that_are_known_only_together_are_named():
    def sum_of_two(y):
        a, b = pyro.sample("a", dist.Normal(0.0, 10.0)), pyro.sample("b", dist.Normal(0.0, 10.0))
        pyro.sample("y", dist.Normal(a + b, 0.1), obs=y)

    a = torch.randn(4, 500).double() * 10 / 2**0.5
    b = 0.1 * torch.randn(4, 500).double() - a
    diagnosis = diagnose(Fit(sum_of_two, (Y[0],), {}, "mcmc", {"a": a, "b": b}, stats={"lp": a}))
    (finding,) = diagnosis.findings
    assert finding[:2] == ("note", "a")
    assert "'a' and 'b' are known only together" in finding.sentence
    assert "in terms of their sum" in finding.sentence
    assert diagnosis.ok
    apart = {"a": a, "b": torch.randn(4, 500).double() * 10 / 2**0.5}
    assert not diagnose(Fit(sum_of_two, (Y[0],), {}, "mcmc", apart, stats={"lp": a})).findings


def test_energy_and_depth_are_judged():
    loc = exact_draws(Y, (4, 500))
    slow = (torch.randn(4, 500).double() * 0.1).cumsum(1)
    assert "BFMI" in str(diagnose(of(loc, stats={"energy": slow})))
    deep = torch.zeros(4, 500, dtype=torch.bool)
    deep[:, ::10] = True
    assert "10% of the trajectories" in str(diagnose(of(loc, stats={"reached_max_treedepth": deep})))


@pytest.mark.parametrize(("khat", "level"), [(0.3, None), (0.8, "warning"), (1.4, "error"), (math.nan, "error")])
def test_khat_is_judged(khat, level):
    found = diagnose(of(exact_draws(Y, (1, 1000)), "svi", info={"khat": khat})).findings
    assert [f.level for f in found] == ([level] if level else [])


def test_an_optimiser_that_stopped_is_an_error_and_a_point_needs_no_more():
    point = torch.zeros(1, 1).double()
    assert diagnose(of(point, "mode", info={"converged": True})).ok
    diagnosis = diagnose(of(point, "mode", info={"converged": False, "message": "line search failed"}))
    assert "did not converge (line search failed)" in str(diagnosis)
    assert not diagnosis.ok


def test_values_that_are_no_numbers_are_an_error():
    loc = exact_draws(Y, (4, 100))
    loc[0, 3] = math.nan
    (finding,) = diagnose(of(loc)).findings
    assert finding[:3] == ("error", "loc", 1)


def test_a_posterior_wider_than_its_prior_is_doubtful():
    diagnosis = diagnose(of(torch.randn(1, 1000).double() * 10, "laplace"))
    assert "times as wide as the prior" in str(diagnosis)
    assert not diagnosis.ok


def test_a_diagnosis_shows_itself():
    diagnosis = diagnose(of(torch.zeros(1, 1).double(), "mode", info={"converged": False}))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(diagnosis)
    assert "do not trust this answer yet" in console.export_text()


def test_summary_is_arviz_s_table():
    loc = exact_draws(Y, (4, 500))
    found = summary(of(loc), ci_prob=0.9)
    assert found.loc["loc", "mean"] == pytest.approx(float(loc.mean()))
    assert found.loc["loc", "eti90_lb"] == pytest.approx(float(loc.quantile(0.05)), abs=1e-6)
    assert {"ess_bulk", "ess_tail", "r_hat"} <= set(found.columns)


def test_elements_that_never_vary_are_no_finding():
    """As the zeros of a Cholesky factor."""

    def correlated():
        pyro.sample("factor", dist.LKJCholesky(2, torch.tensor(2.0, dtype=torch.float64)))

    draws = dist.LKJCholesky(2, torch.tensor(2.0, dtype=torch.float64)).sample((4, 500))
    fit = Fit(correlated, (), {}, "mcmc", {"factor": draws}, stats={"energy": torch.randn(4, 500).double()})
    assert fit.diagnose().ok, fit.diagnose()
    table = fit.summary()
    assert math.isnan(table["r_hat"]["factor[0, 1]"])
    assert table["sd"]["factor[0, 1]"] == 0
    assert abs(table["r_hat"]["factor[1, 0]"] - 1) < 0.01


def test_a_table_sets_answers_side_by_side():
    fits = [
        of(exact_draws(Y, (4, 500)), info={"seconds": 2.0}),
        of(exact_draws(Y, (1, 800)), "laplace", info={"seconds": 0.5}),
        of(torch.zeros(1, 1).double(), "mode"),
        of(torch.ones(1, 1).double(), "mode"),
    ]
    found = table(fits)
    assert list(found.index) == [("loc", "mcmc"), ("loc", "laplace"), ("loc", "mode"), ("loc", "mode 2")]
    assert found.loc[("loc", "mcmc"), "seconds"] == 2.0
    assert found.loc[("loc", "mcmc"), "r_hat"] < 1.02
    assert np.isnan(found.loc[("loc", "laplace"), "r_hat"])
    assert np.isnan(found.loc[("loc", "mode"), "sd"])
    assert found.loc[("loc", "mode 2"), "mean"] == 1.0
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(found, "one posterior"))
    text = console.export_text()
    assert text.count("loc") == 1
    assert "R-hat" in text


def conjugate(scale):
    def fit(program, y, seed=0):
        with pyro.poutine.trace() as tr:
            program(y)
        y = tr.trace.nodes["y"]["value"]
        torch.manual_seed(seed)
        precision = 1 + len(y)
        draws = dist.Normal(y.sum() / precision, scale * precision**-0.5).sample((1, 99))
        return Fit(program, (y,), {}, "exact", {"loc": draws})

    return fit


def test_calibration_passes_what_is_right_and_catches_what_is_too_narrow():
    right = simulation_based_calibration(normal, conjugate(1.0), Y, num_datasets=200)
    assert right.ranks["loc"].shape == (200,)
    assert right.p_value > 0.01
    assert right.tree["prior_sbc"]["loc"].shape == (1, 200)
    narrow = simulation_based_calibration(normal, conjugate(0.6), Y, num_datasets=200)
    assert narrow.p_value < 1e-4


def test_calibration_ranks_what_statistics_gives():
    found = simulation_based_calibration(
        normal, conjugate(1.0), Y, num_datasets=30, statistics=lambda v: {"square": v["loc"] ** 2}
    )
    assert found.ranks.keys() == {"square"}
