"""Two processes that share each batch draw what one draws: by the same call, under `torch.distributed`."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys, warnings
import torch, torch.distributed as distributed
warnings.simplefilter("ignore")
torch.set_num_threads(1)
from inference import {method}
from inference.predict import simulate
from ppmodels.regression.bnn import BayesianNeuralNetwork

rank, world, port, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if world > 1:
    where = f"tcp://127.0.0.1:{{port}}"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=world)
model = BayesianNeuralNetwork(hidden=(4,))
data, _ = simulate(model, 64, seed=0)
fit = {method}.fit(model, data, batch_size=16, compile=False, {options})
torch.save(fit.draws, f"{{file}}.{{world}}.{{rank}}")
"""
OPTIONS = {
    "stochastic_gradient": "num_warmup=40, num_samples=10, thinning=3, num_chains=3, lr=1e-3",
    "ensemble": "num_samples=3, num_steps=60",
}


@pytest.mark.parametrize("method", OPTIONS)
def test_two_processes_draw_what_one_draws(method, tmp_path):
    program = PROGRAM.format(method=method, options=OPTIONS[method])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank), str(world), port, str(tmp_path / "draws")], cwd=ROOT
        )
        for rank, world in ((0, 1), (0, 2), (1, 2))
    ]
    try:
        assert [run.wait(timeout=240) for run in runs] == [0, 0, 0]
    finally:
        for run in runs:
            run.kill()
    one, first, second = (torch.load(tmp_path / f"draws.{name}") for name in ("1.0", "2.0", "2.1"))
    for site, draws in one.items():
        assert torch.equal(first[site], second[site]), "both processes end at the same place"
        assert torch.allclose(first[site], draws, rtol=1e-6, atol=1e-8), site
