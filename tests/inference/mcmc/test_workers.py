"""Draws by other processes: the same for any number of them, also when one dies."""

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import joblib
import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc
from inference.base import Unsupported
from inference.mcmc import workers
from inference.mcmc.plan import Plan
from tests.inference.mcmc import short
from tests.inference.mcmc.short import Y, assert_same, program

SHORT = short.SHORT | {"num_chains": 6}


def steep():
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("b", dist.Normal(a.square(), 0.2))


@pytest.fixture(scope="module")
def alone():
    return mcmc.fit(program, Y, workers=1, **SHORT)


@pytest.fixture
def serial(monkeypatch):
    """Blocks one after the other in this process, whatever is asked for."""
    parallel = workers.Parallel
    asked = []
    monkeypatch.setattr(workers, "Parallel", lambda n_jobs: asked.append(n_jobs) or parallel(n_jobs=1))
    return asked


def test_two_workers_draw_what_one_draws(alone):
    two = mcmc.fit(program, Y, workers=2, **SHORT)
    assert_same(two, alone)
    assert two.draws["scale"].shape == (6, 120)
    assert two.info["gradients"] == alone.info["gradients"]
    assert two.state["turn"] == 120
    assert len(two.state["streams"]) == 3
    assert_same(two.extend(30, workers=2), alone.extend(30))


@pytest.mark.parametrize(("chains", "block", "blocks"), [(1, 1, 1), (4, 1, 4), (6, 2, 3), (256, 64, 4), (4096, 64, 64)])
def test_blocks_are_decided_by_the_plan(chains, block, blocks):
    plan = Plan(0, 1, 1, chains, "hmc", 0.8, 10, "uniform", False, False)
    assert plan.block == block
    assert -(-chains // block) == blocks


def test_blocks_do_not_share_random_numbers(alone):
    x = alone.draws["loc"]
    correlation = torch.corrcoef(x) - torch.eye(6)
    assert correlation.abs().max() < 0.5
    assert not (x[:, 0, None] == x[:, 0]).fill_diagonal_(False).any()


def test_a_run_in_blocks_is_extended_and_resumed_bit_for_bit(alone, serial, tmp_path, monkeypatch):
    part = mcmc.fit(program, Y, workers=7, **SHORT | {"num_samples": 50})
    assert_same(part.extend(70, workers=3), alone)
    options, draw, calls = {"workers": 2, "checkpoint": tmp_path, **SHORT}, workers._round, []

    def crash(*args):
        calls.append(args)
        if len(calls) == 2:
            raise OSError("the machine stops here")
        return draw(*args)

    monkeypatch.setattr(workers, "_round", crash)
    with pytest.raises(OSError, match="stops here"):
        mcmc.fit(program, Y, **options)
    assert torch.load(tmp_path / "state.pt")["turn"] == 50
    assert_same(mcmc.fit(program, Y, **options), alone)
    with pytest.raises(ValueError, match="keeps a run with other in_blocks"):
        mcmc.fit(program, Y, checkpoint=tmp_path, **SHORT)


def test_goals_and_interrupts_stop_a_run_in_blocks(serial, alone, monkeypatch):
    fit = mcmc.fit(program, Y, workers=2, target_ess=100, **SHORT | {"num_samples": 5000})
    assert fit.draws["loc"].shape[1] < 1000
    assert "bulk ESS" in fit.info["message"]
    draw, calls = workers._round, []

    def interrupt(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr(workers, "_round", interrupt)
    fit = mcmc.fit(program, Y, workers=2, **SHORT)
    assert fit.info["message"] == "interrupted; 100 finished draws a chain are kept"
    assert_same(fit.extend(20), alone)


def test_blocks_draw_again_with_half_the_step(serial):
    options = {"num_chains": 64, "num_warmup": 60, "num_samples": 100, "compile": False, "target_accept_prob": 0.5}
    fit = mcmc.fit(steep, workers=2, **options)
    assert fit.info["halved"] > 0
    assert not fit.stats["diverging"].any()
    assert fit.draws["a"].shape == (64, 100)
    assert fit.stats["step_size"].unique().tolist() == [pytest.approx(fit.info["step_size"])]


def test_a_fit_without_blocks_goes_on_without():
    fit = mcmc.fit(program, Y, **SHORT | {"num_samples": 3})
    with pytest.raises(ValueError, match="made without workers"):
        fit.extend(3, workers=2)


def test_what_cannot_be_sent_is_said_in_one_line():
    lock = threading.Lock()

    def program():
        with lock:
            pyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(Unsupported, match=r"cannot be sent \(.*lock.*\): define the model at the top") as error:
        mcmc.fit(program, workers=2, **SHORT)
    assert "\n" not in str(error.value)


def mortal(folder, deaths):
    """A program that kills the process it runs in, unless it is this one, so many times."""
    parent = os.getpid()

    def program():
        if os.getpid() != parent and len(dead := list(folder.iterdir())) < deaths:
            (folder / f"{len(dead)}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        pyro.sample("x", dist.Normal(0.0, 1.0))

    return program


@pytest.fixture
def quiet():
    """The resource tracker of a killed process complains, which is none of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.slow
def test_what_a_dead_worker_drew_is_drawn_again(tmp_path, quiet, caplog):
    options = SHORT | {"num_samples": 20, "num_warmup": 5}
    fit = mcmc.fit(mortal(tmp_path, 1), workers=2, **options)
    assert len(list(tmp_path.iterdir())) == 1
    assert "a worker died; the last 20 draws of every chain are made again" in caplog.text
    assert_same(fit, mcmc.fit(mortal(tmp_path, 0), workers=1, **options))


@pytest.mark.slow
def test_workers_that_keep_dying_are_an_error_of_one_line(tmp_path, quiet):
    with pytest.raises(RuntimeError, match="workers died 3 times in one round") as error:
        mcmc.fit(mortal(tmp_path, 100), workers=2, **SHORT | {"num_samples": 20, "num_warmup": 5})
    assert "\n" not in str(error.value)


CLUSTER = """
import logging, sys
from pathlib import Path
import joblib, torch
from inference import mcmc
sys.path.insert(0, sys.argv[1])
from tests.inference.mcmc.test_workers import SHORT, Y, mortal, program

def dask():
    from distributed import Client, LocalCluster
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL)
    return cluster, Client(cluster)

def ray():
    import ray
    from ray.util.joblib import register_ray
    register_ray()
    return ray.init(num_cpus=2, include_dashboard=False), ray.init(ignore_reinit_error=True)

if __name__ == "__main__":
    where, deaths = sys.argv[3], int(sys.argv[4])
    cluster, client = {"dask": dask, "ray": ray}[where]()
    with cluster, client, joblib.parallel_config(backend=where):
        if deaths:
            fit = mcmc.fit(mortal(Path(sys.argv[5]), deaths), workers=-1, **SHORT)
        else:
            fit = mcmc.fit(program, Y, workers=-1, **SHORT)
    torch.save((fit.draws, fit.stats), sys.argv[2])
"""


def drawn_by(where, tmp_path, deaths=0):
    """What a cluster of two workers draws, of which so many die."""
    root, graves = Path(__file__).resolve().parents[3], tmp_path / "graves"
    script, answer = tmp_path / "cluster.py", tmp_path / "answer.pt"
    graves.mkdir()
    script.write_text(CLUSTER)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    words = [sys.executable, str(script), str(root), str(answer), where, str(deaths), str(graves)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(list(graves.iterdir())) == deaths
    return torch.load(answer)


def assert_drawn(found, fit):
    draws, stats = found
    assert all(torch.equal(draws[name], value) for name, value in fit.draws.items())
    assert all(torch.equal(stats[name], value) for name, value in fit.stats.items())


@pytest.mark.slow
@pytest.mark.parametrize(("where", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_cluster_draws_the_same(where, package, alone, tmp_path):
    pytest.importorskip(package)
    assert_drawn(drawn_by(where, tmp_path), alone)


@pytest.mark.slow
def test_a_worker_of_a_cluster_that_dies_changes_no_draw(tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "none").mkdir()
    assert_drawn(drawn_by("dask", tmp_path, deaths=1), mcmc.fit(mortal(tmp_path / "none", 0), workers=1, **SHORT))


def test_threads_of_one_process_draw_one_block_at_a_time(alone):
    with joblib.parallel_config(backend="threading"):
        assert_same(mcmc.fit(program, Y, workers=3, **SHORT), alone)
    assert logging.getLogger("inference").level == logging.NOTSET
