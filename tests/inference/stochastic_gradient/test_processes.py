"""Two processes that share each batch draw what one draws: by the same call, under `torch.distributed`."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inference.predict import simulate
from ppmodels.regression.linear import LinearRegression

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys, warnings
import torch, torch.distributed as distributed
warnings.simplefilter("ignore")
torch.set_num_threads(1)
from inference import {method}
from inference.predict import simulate
from ppmodels.regression.bnn import BayesianNeuralNetwork
from ppmodels.regression.linear import LinearRegression

rank, world, port, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if world > 1:
    where = f"tcp://127.0.0.1:{{port}}"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=world)
model = {model}
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
    program = PROGRAM.format(method=method, options=OPTIONS[method], model="BayesianNeuralNetwork(hidden=(4,))")
    run(program, ((0, 1), (0, 2), (1, 2)), tmp_path / "draws")
    one, first, second = (torch.load(tmp_path / f"draws.{name}") for name in ("1.0", "2.0", "2.1"))
    for site, draws in one.items():
        assert torch.equal(first[site], second[site]), "both processes end at the same place"
        assert torch.allclose(first[site], draws, rtol=1e-6, atol=1e-8), site


@pytest.mark.slow
def test_two_processes_that_draw_weights_of_their_own_end_at_the_same_normals(tmp_path):
    """Bayes by backprop: each process has its rows and its noise, so the same law is found, by other draws."""
    options = "num_samples=4000, num_steps=2500, num_particles=8, lr=0.05"
    model = "LinearRegression(features=1, spread=2.0)"
    run(PROGRAM.format(method="bayes_by_backprop", options=options, model=model), ((0, 2), (1, 2)), tmp_path / "draws")
    first, second = (torch.load(tmp_path / f"draws.{name}")["coef"] for name in ("2.0", "2.1"))
    assert torch.equal(first, second)
    linear = LinearRegression(features=1, spread=2.0)
    truth = linear.posterior(simulate(linear, 64, seed=0)[0])["coef"]
    sds = torch.linalg.inv(truth.covariance_matrix).diagonal().rsqrt()
    assert float(((first[0].mean(0) - truth.mean) / sds).abs().max()) < 0.2
    assert float((first[0].std(0) / sds - 1).abs().max()) < 0.1


def run(program, places, file):
    """Run a program in one process for each (rank, world), and see that all end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    runs = [
        subprocess.Popen([sys.executable, "-c", program, str(rank), str(world), port, str(file)], cwd=ROOT)
        for rank, world in places
    ]
    try:
        assert [process.wait(timeout=240) for process in runs] == [0] * len(runs)
    finally:
        for process in runs:
            process.kill()
