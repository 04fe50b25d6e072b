"""Coupled Poisson populations: the mode beside nemos and statsmodels, 50,100 parameters, memory, the full posterior."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._glm.problem import population
from ppmodels.population.lagging import lagged

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print the tables: processor seconds of one thread, each fit in a process of its own."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("part", nargs="?", default="all", choices=("all", "mode", "large", "memory", "posterior"))
    words.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    words.add_argument("--bins", type=int, default=100_000)
    told = words.parse_args()
    torch.set_num_threads(1)
    parts = {"mode": modes, "large": large, "memory": memory, "posterior": posterior}
    for name, part in parts.items():
        if told.part in ("all", name):
            part(told)


def modes(told: Any) -> None:
    """N = 20: who comes how near to the optimum, and how fast; log likelihoods are without log y! and log bin size."""
    model, counts = population(20, told.bins)
    own = model.windows(counts)
    features = lagged(counts[:-1], own.coupling).flatten(-2)  # (T - L, N K), the same for all peers
    target = counts[own.past :]
    print(f"N = 20, {len(target)} bins, {20 * (features.shape[1] + 1)} parameters: the mode")
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / f"{name}.npy") for name in ("counts", "features", "target")}
        for name, value in {"counts": counts, "features": features, "target": target}.items():
            np.save(files[name], value.numpy())
        rows = {
            "ours, float32": _ours(files["counts"], folder, counts, 1.0, torch.float32),
            "ours, float64": _ours(files["counts"], folder, counts, 1.0, torch.float64),
        }
        constant = float(torch.lgamma(target.double() + 1).mean())  # which the peers leave out
        for row in rows.values():
            row["log_likelihood"] += constant
        for x64 in (False, True):
            task = {"peer": "nemos", "x64": x64, "repeats": 2} | files
            rows[f"nemos, defaults{', x64' if x64 else ''}"] = _child(told.python, task)
        options = {"maxiter": 2000, "tol": 1e-10}
        rows["nemos, x64, 2000 steps"] = _child(told.python, {"peer": "nemos", "x64": True, "options": options} | files)
        rows["statsmodels, 2 of 20 timed"] = _child(told.python, {"peer": "statsmodels", "neurons": 2} | files)
    best = max(row["log_likelihood"] for name, row in rows.items() if "log_likelihood" in row and "statsm" not in name)
    print(f"{'':28} {'CPU s':>8} {'ratio':>7} {'nats a bin below the best':>26} {'MiB':>7}")
    for name, row in rows.items():
        if "cpu" not in row:
            print(f"{name:28} {row['failed']}")
            continue
        gap = f"{best - row['log_likelihood']:.1e}" if "statsm" not in name else "(of 2 neurons)"
        ratio = row["cpu"] / rows["ours, float32"]["cpu"]
        print(f"{name:28} {row['cpu']:8.2f} {ratio:7.1f} {gap:>26} {row['mebibytes']:7.0f}")


def large(told: Any) -> None:
    """N = 100: 50,100 parameters."""
    _, counts = population(100, told.bins)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "counts.npy")
        row = _ours(path, folder, counts, 1.0, torch.float32)
    print(
        f"N = 100, {told.bins} bins, {row['parameters']} parameters: {row['cpu']:.1f} CPU s, {row['mebibytes']:.0f} MiB"
    )


def memory(told: Any) -> None:
    """Peak memory at N = 100 and twice the bins, features streamed: the same for a window of 10, 100 and 400 bins."""
    _, counts = population(100, 2 * told.bins)
    for window in (0.1, 1.0, 4.0):
        with tempfile.TemporaryDirectory() as folder:
            row = _ours(str(Path(folder) / "counts.npy"), folder, counts, window, torch.float32)
        lags = 4 * 100 * round(window / 0.01) * len(counts) / 2**20
        print(f"N = 100, {len(counts)} bins, window {round(window / 0.01)} bins: {row['mebibytes']:.0f} MiB, "
              f"{row['cpu']:.1f} CPU s; a matrix of lags alone would be {lags:.0f} MiB")  # fmt: skip


def posterior(told: Any) -> None:
    """N = 20: every weight's posterior, part by part."""
    from arviz_stats import ess, rhat

    from inference import mcmc
    from inference.parts import in_parts

    model, counts = population(20, told.bins)
    start = time.process_time()
    data = model.data(counts)
    fit = in_parts(mcmc.fit, model, data, num_chains=16, num_warmup=20, num_samples=80, compile=False)
    spent = time.process_time() - start
    values = np.concatenate([v.flatten(2).numpy() for v in fit.draws.values()], 2)  # (chain, draw, parameters)
    worst = max(float(rhat(values[:, :, i])) for i in range(values.shape[2]))
    least = min(float(ess(values[:, :, i])) for i in range(values.shape[2]))
    print(
        f"N = 20, {values.shape[2]} parameters, full posterior: {spent:.0f} CPU s, R-hat {worst:.3f}, ESS {least:.0f}"
    )


def _ours(path: str, folder: str, counts: torch.Tensor, window: float, kind: torch.dtype) -> dict[str, Any]:
    np.save(path, counts.to(kind).numpy())
    return _child(sys.executable, {"peer": "ours", "counts": path, "window": window})


def _child(python: str, task: dict[str, Any]) -> dict[str, Any]:
    """Run a task in a process of its own, on one thread."""
    one = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    flags = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
    environment = {**os.environ, **one, **flags, "PYTHONPATH": str(HERE)}
    script = str(HERE / "benchmarks" / "_glm" / "child.py")
    done = subprocess.run(
        [python, script, json.dumps(task)], env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1][:90]}
    return json.loads(lines[-1])


if __name__ == "__main__":
    main()
