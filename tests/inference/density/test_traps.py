"""Traps of tracing and compiling whose tests belong to no single file."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import mcmc
from inference.base import fresh
from inference.density import Density

F = torch.float64


def test_a_matrix_times_a_vector_is_a_matrix_product_over_the_chains():
    """Inductor makes a plain loop of `X @ b`, half as fast as BLAS; over chains no such product is left."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 30, generator=generator, dtype=F)
    y = torch.randn(2000, generator=generator, dtype=F)

    def program(x, y):
        b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([30]).to_event(1))
        pyro.sample("y", dist.Normal(x @ b, 1.0).to_event(1), obs=y)

    with fresh(program, (x, y)) as own:
        density = Density.of(own, (x, y))
        batched = density.batched(16, compile=False)
        graph = density._traced()[0].batches[16][0].varying
    operations = [node for node in graph.graph.nodes if node.op == "call_function"]
    assert sum("mm" in str(node.target) for node in operations) == 2  # there, and back for the gradient
    assert not any("mv" in str(node.target) for node in operations)
    assert max(node.meta["tensor_meta"].shape.numel() for node in operations if "tensor_meta" in node.meta) <= 2000 * 30
    b = torch.randn(16, 30, generator=generator, dtype=F)
    torch.testing.assert_close(batched(b)[1], (y - b @ x.T) @ x - b)


def test_a_fallback_is_said_once_in_a_whole_fit(caplog):
    def program(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
        if loc > 0:
            pyro.factor("right", torch.tensor(1.0).log())
        pyro.sample("y", dist.Normal(loc, 1.0).expand([len(y)]).to_event(1), obs=y)

    y = torch.tensor([0.3, 1.2, -0.4], dtype=F)
    with caplog.at_level(logging.WARNING, "inference"):
        fit = mcmc.fit(program, y, num_chains=2, num_warmup=20, num_samples=20, init="uniform")
    said = [record.getMessage() for record in caplog.records]
    assert sum("running it as it is, which is slow" in line for line in said) == 1, said
    assert len(said) == 1, said
    assert fit.info["executor"] == "eager"
    assert "a branch depends on a value" in fit.info["executor_reason"]


CHILD = """
import pyro, pyro.distributions as dist, torch
from inference.base import fresh
from inference.density import Density
def program(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    pyro.sample("y", dist.StudentT(4.0, loc, 1.0).expand([len(y)]).to_event(1), obs=y)
y = torch.tensor([0.3, 1.2, -0.4], dtype=torch.float64)
with fresh(program, (y,)) as own:
    batched = Density.of(own, (y,)).batched(8, compile=True)
    value, _ = batched(torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None])
assert batched.executor == "inductor", batched.reason
print(value.sum().item().hex())
"""


@pytest.mark.slow
def test_what_is_compiled_stays_on_disk_for_the_next_process(tmp_path):
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(root)}
    values, libraries = [], []
    for _ in range(2):
        words = [sys.executable, "-c", CHILD]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        values.append(done.stdout)
        libraries.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.so")})
    assert len(libraries[0]) > 0
    assert libraries[1] == libraries[0]  # the C++ compiler has not run again
    assert values[1] == values[0]
