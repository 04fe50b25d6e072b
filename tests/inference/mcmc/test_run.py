"""A run as an object: reproducible, resumable, stoppable, and complete in what it reports."""

import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz_stats import ess
from scipy import stats

from inference import mcmc
from inference.density.executor import Batched
from inference.mcmc import run as running
from inference.mcmc import store
from inference.mcmc.plan import TOGETHER
from tests.inference.mcmc.short import SHORT, Y, assert_same, program


@pytest.fixture(scope="module")
def undisturbed():
    return mcmc.fit(program, Y, **SHORT)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_number_of_threads_changes_no_draw(undisturbed, threads):
    for number in (1, 2):
        threads(number)
        assert_same(mcmc.fit(program, Y, **SHORT), undisturbed)


def test_a_run_leaves_no_trace(undisturbed):
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_default_dtype()
    pyro.get_param_store().clear()
    pyro.param("mine", torch.tensor(1.0))
    handlers = list(pyro.poutine.runtime._PYRO_STACK)
    mcmc.fit(program, Y, **SHORT | {"num_samples": 5})
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    assert torch.get_default_dtype() == before[3]
    assert list(pyro.get_param_store()) == ["mine"]
    assert handlers == pyro.poutine.runtime._PYRO_STACK
    pyro.clear_param_store()


def test_a_run_that_is_extended_is_a_longer_run(undisturbed):
    for parts in ((70, 50), (1, 49, 70)):
        fit = mcmc.fit(program, Y, **SHORT | {"num_samples": parts[0]})
        for more in parts[1:]:
            fit = fit.extend(more)
        assert_same(fit, undisturbed)
    assert fit.info["gradients"] == undisturbed.info["gradients"]


def test_many_chains_adapt_together_and_few_draw():
    fit = mcmc.fit(program, Y, **SHORT | {"num_samples": 3, "save_warmup": True})
    assert fit.state["plan"]["warmup_chains"] == TOGETHER
    assert fit.draws["loc"].shape == (4, 3)
    assert fit.warmup_draws["loc"].shape == (4, 40)
    assert fit.warmup_stats["step_size"].shape == (4, 40)
    assert fit.warmup_stats["step_size"].unique().numel() > 30
    assert fit.stats["step_size"].unique().numel() == 1


class Crash(Exception):
    """The machine stops here."""


@pytest.mark.parametrize("turn", [0, 1, 49, 50, 77, 119])
def test_a_run_that_crashed_while_drawing_ends_like_one_that_did_not(turn, undisturbed, tmp_path, monkeypatch):
    move = running.Run.step

    def crash(run):
        if run.turn == turn:
            raise Crash
        return move(run)

    monkeypatch.setattr(running.Run, "step", crash)
    with pytest.raises(Crash):
        mcmc.fit(program, Y, checkpoint=tmp_path, **SHORT)
    monkeypatch.setattr(running.Run, "step", move)
    monkeypatch.setattr(running, "warm_up", None)  # it goes on, and does not begin again
    assert_same(mcmc.fit(program, Y, checkpoint=tmp_path, **SHORT), undisturbed)


def test_a_crash_between_the_draws_and_the_state_repeats_the_chunk(undisturbed, tmp_path, monkeypatch):
    write = store.write

    def crash(path, value):
        if path.name == "state.pt" and value["turn"] == 100:
            raise Crash
        write(path, value)

    monkeypatch.setattr(running, "write", crash)
    with pytest.raises(Crash):
        mcmc.fit(program, Y, checkpoint=tmp_path, **SHORT)
    monkeypatch.setattr(running, "write", write)
    assert (tmp_path / "draws-000001.pt").exists()
    assert torch.load(tmp_path / "state.pt")["turn"] == 50
    assert_same(mcmc.fit(program, Y, checkpoint=tmp_path, **SHORT), undisturbed)


def test_a_run_that_crashed_in_its_warm_up_begins_again(undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(running.Progress, "advance", lambda *_: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            mcmc.fit(program, Y, checkpoint=tmp_path, **SHORT)
    assert_same(mcmc.fit(program, Y, checkpoint=tmp_path, **SHORT), undisturbed)


def test_a_finished_run_is_read_back_and_a_longer_one_goes_on(undisturbed, tmp_path):
    options = SHORT | {"checkpoint": tmp_path, "save_warmup": True}
    first = mcmc.fit(program, Y, **options | {"num_samples": 60})
    again = mcmc.fit(program, Y, **options | {"num_samples": 60})
    assert_same(first, again)
    whole = mcmc.fit(program, Y, **options)
    assert_same(whole, undisturbed)
    assert_same(first, again)  # whose files the longer run has not touched
    assert torch.equal(whole.warmup_draws["scale"], first.warmup_draws["scale"])
    assert whole.warmup_stats["lp"].shape == (4, 40)


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_run_s_folder_is_refused(tmp_path):
    mcmc.fit(program, Y, checkpoint=tmp_path, **SHORT | {"num_samples": 2})
    with pytest.raises(ValueError, match=r"keeps a run with other seed, num_warmup; choose another folder") as error:
        mcmc.fit(program, Y, checkpoint=tmp_path, **SHORT | {"seed": 6, "num_warmup": 41})
    assert one_line(error)
    with pytest.raises(ValueError, match="keeps a run of another model, or of other data") as error:
        mcmc.fit(program, 2 * Y, checkpoint=tmp_path, **SHORT)
    assert one_line(error)
    (tmp_path / "state.pt").write_text("nothing")
    with pytest.raises(ValueError, match=r"state\.pt is not the state of a run") as error:
        mcmc.fit(program, Y, checkpoint=tmp_path, **SHORT)
    assert one_line(error)
    with pytest.raises(ValueError, match="checkpoint is a folder"):
        mcmc.fit(program, Y, checkpoint=tmp_path / "state.pt", **SHORT)


@pytest.mark.parametrize("folder", [False, True])
def test_an_interrupt_keeps_what_is_finished(folder, undisturbed, tmp_path, monkeypatch):
    move, options = running.Run.step, SHORT | ({"checkpoint": tmp_path} if folder else {})

    def interrupt(run):
        if run.turn == 77:
            raise KeyboardInterrupt
        return move(run)

    monkeypatch.setattr(running.Run, "step", interrupt)
    fit = mcmc.fit(program, Y, **options)
    assert fit.draws["loc"].shape == (4, 77)
    assert fit.info["converged"] is False
    assert fit.info["message"] == "interrupted; 77 finished draws a chain are kept"
    assert "interrupted" in str(fit.diagnose())
    monkeypatch.setattr(running.Run, "step", move)
    assert_same(fit.extend(43), undisturbed)
    if folder:
        assert_same(mcmc.fit(program, Y, **options), undisturbed)


def test_an_interrupt_in_the_middle_of_a_turn_takes_the_turn_back(undisturbed, monkeypatch):
    calls, once, step = [], Batched.once, running.Run.step

    def draw(self):
        calls.append(0)  # gradients of the warm-up do not count
        return step(self)

    def interrupt(self, x):
        if calls:
            calls[-1] += 1
            if sum(calls) > 100 and calls[-1] == 2 and len(calls) < 120:
                monkeypatch.undo()
                raise KeyboardInterrupt
        return once(self, x)

    monkeypatch.setattr(running.Run, "step", draw)
    monkeypatch.setattr(Batched, "once", interrupt)
    fit = mcmc.fit(program, Y, **SHORT)
    made = fit.draws["loc"].shape[1]
    assert 1 < made < 119
    assert len(calls) == made + 1
    assert_same(fit.extend(120 - made), undisturbed)


def test_an_interrupt_before_the_first_draw_is_one(monkeypatch):
    def interrupt(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(running.Run, "step", interrupt)
    with pytest.raises(KeyboardInterrupt, match="before the first draw"):
        mcmc.fit(program, Y, **SHORT)


def test_a_timeout_stops_the_draws(monkeypatch):
    mcmc.fit(program, Y, **SHORT)  # traced
    began = time.monotonic()
    fit = mcmc.fit(program, Y, timeout=2.0, **SHORT | {"num_samples": 1_000_000})
    assert time.monotonic() - began < 8
    made = fit.draws["loc"].shape[1]
    assert 0 < made < 1_000_000
    assert fit.info["message"] == f"timeout of 2 s after {made} draws a chain"
    assert fit.info["converged"] is False
    with pytest.raises(TimeoutError, match=r"timeout of 1e-06 s in the warm-up, at 1 of 40 turns") as error:
        mcmc.fit(program, Y, timeout=1e-6, **SHORT)
    assert one_line(error)


def test_enough_effective_draws_end_a_run():
    fit = mcmc.fit(program, Y, target_ess=400, **SHORT | {"num_samples": 100_000, "num_chains": 8})
    made = fit.draws["loc"].shape[1]
    assert made < 2000
    assert fit.info["converged"] is True
    assert f"after {made} draws a chain" in fit.info["message"]
    # loc is a coordinate of the density itself, and log(scale) has the ranks of scale
    assert min(float(ess(fit.draws[name].numpy(), method="bulk")) for name in fit.draws) > 0.98 * 400
    short = fit.extend(100_000, target_ess=10)
    assert short.draws["loc"].shape[1] <= made + 50


def steep():
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("b", dist.Normal(a.square(), 0.2))


STEEP = {
    "num_chains": 64,
    "num_warmup": 100,
    "num_samples": 150,
    "compile": False,
    "target_accept_prob": 0.5,
    "seed": 1,
}


def test_divergences_are_drawn_again_with_half_the_step(monkeypatch, caplog, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(running, "HALVINGS", 0)
        before = mcmc.fit(steep, **STEEP)
    assert before.stats["diverging"].any()
    assert before.info["halved"] == 0
    with caplog.at_level("INFO", "inference"):
        fit = mcmc.fit(steep, **STEEP)
    assert "trajectories diverged; drawing again with half the step" in caplog.text
    assert not fit.stats["diverging"].any()
    assert fit.draws["a"].shape == (64, 150)
    assert fit.info["halved"] in (1, 2)
    assert fit.info["step_size"] == pytest.approx(before.info["step_size"] / 2 ** fit.info["halved"])
    assert fit.stats["step_size"].unique().numel() == 1
    kept = mcmc.fit(steep, checkpoint=tmp_path, **STEEP | {"num_samples": 70})
    assert_same(mcmc.fit(steep, checkpoint=tmp_path, **STEEP), fit)
    more = kept.extend(5)
    assert torch.equal(more.draws["a"][:, :70], kept.draws["a"])


def test_a_crash_amid_draws_that_are_made_again_changes_nothing(monkeypatch, tmp_path):
    whole, move, made = mcmc.fit(steep, **STEEP), running.Run.step, []

    def crash(run):
        made.append(run.halved)
        if len(made) in (20, 60, 90, 130, 180):
            raise Crash
        return move(run)

    monkeypatch.setattr(running.Run, "step", crash)
    for _ in range(6):
        try:
            fit = mcmc.fit(steep, checkpoint=tmp_path, **STEEP)
        except Crash:
            continue
        break
    assert made.count(0) > 0
    assert made[-1] == whole.info["halved"] > 0
    assert_same(fit, whole)


@pytest.mark.parametrize("after", [0, 50, 180])
@pytest.mark.parametrize("kernel", ["hmc", "nuts", "chees"])
def test_out_of_memory_halves_the_chains_and_changes_no_draw(kernel, after, monkeypatch, caplog):
    options = SHORT | {"num_chains": 64, "num_warmup": 12, "num_samples": 30, "kernel": kernel}
    whole = mcmc.fit(program, Y, **options)
    once, calls, widths = Batched.once, [], set()

    def small(self, x):
        calls.append(len(x))
        if self.parts == 1 and len(x) > 16 and len(calls) > after:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate a lot")
        widths.add(len(x))
        return once(self, x)

    monkeypatch.setattr(Batched, "once", small)
    fit = mcmc.fit(program, Y, **options)
    assert len(calls) > after
    assert 16 in widths
    assert fit.info["executor_reason"].startswith("memory holds 1/")
    if after:
        assert "out of memory; the chains move in 4 parts from here on" in caplog.text
    assert_same(fit, whole)


def test_memory_that_holds_no_chain_is_an_error(monkeypatch):
    def nothing(self, x):
        raise MemoryError("no memory")

    monkeypatch.setattr(Batched, "once", nothing)
    with pytest.raises(MemoryError):
        mcmc.fit(program, Y, **SHORT)


DTYPES = {
    "lp": torch.float64,
    "energy": torch.float64,
    "energy_error": torch.float64,
    "acceptance_rate": torch.float64,
    "step_size": torch.float64,
    "diverging": torch.bool,
    "reached_max_treedepth": torch.bool,
    "n_steps": torch.int32,
    "tree_depth": torch.int32,
}


def plain():
    with pyro.plate("rows", 5):
        pyro.sample("x", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("kernel", ["hmc", "nuts", "chees", "mams"])
def test_statistics_are_complete_and_agree(kernel):
    fit = mcmc.fit(plain, kernel=kernel, num_chains=64, num_samples=80, num_warmup=40, compile=False, seed=1)
    found = fit.stats
    assert {name: value.dtype for name, value in found.items()} == DTYPES
    assert all(value.shape == (64, 80) for value in found.values())
    x = fit.draws["x"]
    torch.testing.assert_close(found["lp"], -0.5 * x.square().sum(-1) - 2.5 * math.log(2 * math.pi))
    rate, error, steps = found["acceptance_rate"], found["energy_error"], found["n_steps"]
    assert ((rate >= 0) & (rate <= 1)).all()
    assert 0.6 < rate.mean() < 0.98
    assert (steps >= 1).all()
    # a tree's last doubling counts its leaves, but not as a level when it turns back
    assert (steps < 2 ** (found["tree_depth"] + (kernel == "nuts"))).all()
    assert (steps >= 2 ** (found["tree_depth"] - 1)).all()
    rate, error = rate[:, 1:], error[:, 1:]
    stayed = (x.diff(dim=1) == 0).all(-1)
    assert (error[stayed] == 0).all()
    if kernel != "nuts":  # there an acceptance is the mean over a tree
        torch.testing.assert_close(rate[~stayed], (-error[~stayed]).exp().clamp(max=1.0))
        assert stayed.double().mean().item() == pytest.approx(1 - rate.mean().item(), abs=0.03)
    if kernel != "mams":  # which has no kinetic energy
        kinetic = found["energy"] + found["lp"]
        assert (kinetic >= 0).all()
        assert stats.kstest(2 * kinetic[:, ::8].flatten(), stats.chi2(5).cdf).pvalue > 1e-4
    assert found["step_size"].unique().tolist() == [pytest.approx(fit.info["step_size"])]
    assert not found["diverging"].any()
    assert fit.info["gradients"] >= int(steps.sum())


def test_a_posterior_without_normalisable_start_is_refused_in_one_line():
    def impossible():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("never", -torch.inf * x.square())

    with pytest.raises(ValueError, match="finite log density") as error:
        mcmc.fit(impossible, **SHORT)
    assert one_line(error)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.inference.mcmc.short import Y, program
from inference import mcmc
fit = mcmc.fit(program, Y, checkpoint=sys.argv[2], num_chains=4, num_warmup=60, num_samples=1500, compile=False, seed=5)
import torch
torch.save((fit.draws, fit.stats), Path(sys.argv[2]) / "result.pt")
"""


def child(folder):
    root = str(Path(__file__).resolve().parents[3])
    return subprocess.Popen([sys.executable, "-c", CHILD, root, str(folder)], stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_bit_for_bit_like_one_that_is_not(tmp_path):
    undisturbed = mcmc.fit(program, Y, num_chains=4, num_warmup=60, num_samples=1500, compile=False, seed=5)
    rng, kills, seen = random.Random(time.time_ns()), 0, set()
    while not (tmp_path / "result.pt").exists():
        process = child(tmp_path)
        try:
            _, said = process.communicate(timeout=rng.uniform(2.0, 9.0) if kills < 6 else 120)
            assert process.returncode == 0, said
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            seen.add((tmp_path / "state.pt").exists())
    assert kills
    draws, found = torch.load(tmp_path / "result.pt")
    assert all(torch.equal(draws[name], value) for name, value in undisturbed.draws.items())
    assert all(torch.equal(found[name], value) for name, value in undisturbed.stats.items())


MILLION = """
import resource, sys
import pyro, pyro.distributions as dist, torch
from inference import mcmc
def ten():
    with pyro.plate("rows", 10):
        pyro.sample("x", dist.LogNormal(0.0, 1.0))
folder = sys.argv[1] or None
fit = mcmc.fit(ten, num_chains=int(sys.argv[2]), num_samples=1_000_000 // int(sys.argv[2]), checkpoint=folder)
assert fit.draws["x"].shape[:2].numel() == 1_000_000 // int(sys.argv[2]) * int(sys.argv[2])
assert abs(float(fit.draws["x"].log().std()) - 1) < 0.02
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("chains", [64, 256])
@pytest.mark.parametrize("folder", [False, True])
def test_a_million_draws_of_ten_parameters_take_less_than_a_gibibyte(folder, chains, tmp_path):
    assert resource.getpagesize()
    root = Path(__file__).resolve().parents[3]
    words = [sys.executable, "-c", MILLION, str(tmp_path) if folder else "", str(chains)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 2**20  # in KiB
