"""Autoencoders through `svi`: saved and loaded, ended by held-out rows, broken off, shared, in half precision."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import inference
from inference import svi
from ppmodels.autoencoders.bounds import elbo
from ppmodels.autoencoders.vae import VariationalAutoencoder
from ppmodels.base import Data
from ppmodels.nn.mlp import mlp

ROOT = Path(__file__).resolve().parents[3]


def lines(rows, seed=0, dim=5, noise=0.3):
    """Rows near a plane, single precision."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(dim, 2, generator=torch.Generator().manual_seed(3))
    return torch.randn(rows, 2, generator=generator) @ w.mT + noise * torch.randn(rows, dim, generator=generator)


@pytest.mark.parametrize("kind", ["mlp", "convolutional", "own"])
def test_a_saved_autoencoder_codes_as_before(kind, tmp_path):
    torch.manual_seed(0)
    x = torch.rand(9, 16)
    options = {
        "mlp": {},
        "convolutional": {"network": "convolutional", "shape": (1, 4, 4), "hidden": 3},
        "own": {"modules": (nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 4)), mlp([2, 6, 16], "tanh"))},
    }[kind]
    model = VariationalAutoencoder(dim=16, likelihood="continuous_bernoulli", **options)
    fit = svi.fit(model, Data.of(model, x=x), num_steps=10, lr=0.05, num_samples=3)
    path = fit.save(tmp_path / "fit.nc")
    if kind == "own":
        with pytest.raises(ValueError, match="must be given"):
            inference.load(path)
    again = inference.load(path, model=model) if kind == "own" else inference.load(path)
    codes = fit.model.encode(x)
    assert torch.equal(again.model.encode(x), codes)
    assert torch.equal(again.model.decode(codes), fit.model.decode(codes))
    assert not torch.equal(model.encode(x), codes)
    with pytest.raises(ValueError, match="another model: its encoder does not fit the one given") as caught:
        inference.load(path, model=VariationalAutoencoder(dim=16, hidden=5))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_held_out_rows_end_the_run_at_its_best():
    """Twelve rows and a wide network, which learns them by heart: the bound of others first rises, then falls."""
    x, other = lines(12), lines(200, seed=1)
    model = VariationalAutoencoder(dim=5, noise=0.3, hidden=64)
    fit = svi.fit(
        model, Data.of(model, x=x), held_out=Data.of(model, x=other), num_steps=4000, num_particles=8, lr=0.03,
        num_samples=2, training={"window": 20},
    )  # fmt: skip
    assert fit.info["message"] == "the held-out bound no longer rises"
    assert fit.info["steps"] < 4000
    curve = fit.trace["held_out"]
    assert len(curve) == len(fit.trace["elbo"])
    told, kl = elbo(fit.model, other, 400)
    bound = 12 * (told - kl.sum(-1)).detach().mean()  # on the scale of the rows trained on
    first, best, last = float(curve[0]), float(curve.max()), float(curve[-1])
    assert best - last > 3 * abs(float(bound) - best), "the best weights were kept, not the last"
    assert best - first > 3 * abs(float(bound) - best)


def test_a_broken_off_run_ends_with_the_same_weights(tmp_path):
    """Minibatches, an annealed bound and held-out rows, all of them in the middle of things."""
    x, other = lines(60), lines(40, seed=1)
    model = VariationalAutoencoder(dim=5, hidden=8)

    def run(kill=None, **checkpoint):
        def beta(step):
            if step == kill:
                raise KeyboardInterrupt
            return min(1.0, (step + 1) / 120)

        return svi.fit(
            model, Data.of(model, x=x), held_out=Data.of(model, x=other), loss=svi.WeightedELBO(beta=beta),
            batch_size=20, num_steps=200, lr=0.01, num_samples=3, seed=5, training={"window": 20}, **checkpoint,
        )  # fmt: skip

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(kill=150, checkpoint=tmp_path / "run")
    assert (tmp_path / "run").exists()
    resumed = run(checkpoint=tmp_path / "run")
    for name, value in whole.state["parameters"].items():
        assert torch.equal(resumed.state["parameters"][name], value), name
    for name in ("elbo", "held_out"):
        assert torch.equal(resumed.trace[name], whole.trace[name])
    assert torch.equal(resumed.draws["z"], whole.draws["z"])


CHILD = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from tests.ppmodels.autoencoders.test_vae_runs import long
folder = Path(sys.argv[2])
torch.save(long(checkpoint=folder / "run").state["parameters"], folder / "result.pt")
"""


def saved(path):
    """When the run was last saved, if it was."""
    return path.stat().st_mtime_ns if path.exists() else None


def long(**checkpoint):
    """Seconds of training, saved at every window."""
    torch.manual_seed(0)
    model = VariationalAutoencoder(dim=5, hidden=8)
    return svi.fit(
        model, Data.of(model, x=lines(60)), batch_size=20, num_steps=6000, lr=0.01, num_samples=3, seed=5,
        training={"window": 50, "schedule": lambda step: 1.0}, **checkpoint,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(tmp_path):
    whole, kills = long().state["parameters"], 0
    while not (tmp_path / "result.pt").exists():
        process = subprocess.Popen([sys.executable, "-c", CHILD, str(ROOT), str(tmp_path)])
        before = saved(tmp_path / "run")
        while process.poll() is None and (kills == 4 or saved(tmp_path / "run") == before):
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.3))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        else:
            assert process.returncode == 0
    assert kills
    resumed = torch.load(tmp_path / "result.pt")
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_half_precision_learns_the_same_bound():
    x = lines(200)
    model = VariationalAutoencoder(dim=5, noise=0.3)
    options = {"num_steps": 300, "lr": 0.02, "num_samples": 50}
    whole = svi.fit(model, Data.of(model, x=x), **options)
    half = svi.fit(model, Data.of(model, x=x), training={"precision": "bf16"}, **options)
    assert all(value.dtype == torch.float32 for value in half.state["parameters"].values())
    assert half.info["elbo"] == pytest.approx(whole.info["elbo"], rel=0.05)
    assert any(not torch.equal(v, whole.state["parameters"][n]) for n, v in half.state["parameters"].items())


TWO = """
import sys, torch
from torch import distributed
from inference import svi
from ppmodels.autoencoders.vae import VariationalAutoencoder
from ppmodels.base import Data
rank, world, address, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
x = torch.load(out + "rows")
model = VariationalAutoencoder(dim=5, noise=0.3)
fit = svi.fit(model, Data.of(model, x=x), batch_size=40, num_steps=300, lr=0.02, num_samples=50, seed=2)
torch.save((fit.state["parameters"], fit.info["elbo"]), f"{out}{rank}")
"""


@pytest.mark.slow
def test_two_processes_share_the_batches_and_the_weights(tmp_path):
    """Each draws codes of its own rows: not the bits of one process, but one network, as good as that of one."""
    x = lines(200)
    torch.save(x, tmp_path / "rows")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    words = [sys.executable, "-c", TWO]
    runs = [subprocess.Popen([*words, str(r), "2", address, f"{tmp_path}/"], cwd=ROOT) for r in (0, 1)]
    try:
        assert [run.wait(timeout=240) for run in runs] == [0, 0]
    finally:
        for run in runs:
            run.kill()
    (first, bound), (second, _) = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    assert all(torch.equal(second[name], value) for name, value in first.items())
    model = VariationalAutoencoder(dim=5, noise=0.3)
    alone = svi.fit(model, Data.of(model, x=x), batch_size=40, num_steps=300, lr=0.02, num_samples=50, seed=2)
    assert bound == pytest.approx(alone.info["elbo"], rel=0.05)
