"""Coupled Poisson populations: the mode beside nemos and statsmodels, 50,100 parameters, memory, the full posterior."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from benchmarks._clock import timed
from benchmarks._glm.problem import population
from benchmarks._record import recorded
from ppmodels.population.lagging import lagged

HERE = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
Part = Literal["mode", "large", "memory", "posterior"]


def compare(
    parts: tyro.conf.Positional[tuple[Part, ...]] = ("mode", "large", "memory", "posterior"),
    python: str = sys.executable,
    bins: int = 100_000,
    out: Path | None = None,
) -> None:
    """Print the tables: processor seconds of one thread, each fit of a mode in a process of its own.

    Args:
        parts: which of the tables.
        python: the interpreter that has the peers.
        bins: of the simulated recording, of 10 ms each.
        out: a file for the tables as text.
    """
    torch.set_num_threads(1)
    with recorded(out, "torch", "nemos", "statsmodels"):
        if "mode" in parts:
            modes(python, bins)
        if "large" in parts:
            large(bins)
        if "memory" in parts:
            memory(bins)
        if "posterior" in parts:
            posterior(bins)


def modes(python: str, bins: int) -> None:
    """N = 20: who comes how near to the optimum, and how fast; log likelihoods are without log y! and log bin size."""
    model, counts = population(20, bins)
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
        for x64 in (False, True):  # the second, compiled call is timed
            task = {"peer": "nemos", "x64": x64, "repeats": 2 - x64, "warm": x64} | files
            rows[f"nemos, L-BFGS, {'x64' if x64 else 'float32'}"] = _child(python, task)
        rows["statsmodels, 1 of 20, times 20"] = _child(python, {"peer": "statsmodels", "neurons": 1} | files)
    _table(rows)


def _table(rows: dict[str, Row]) -> None:
    """Seconds, times those of ours, and how far below the best of those that fitted all neurons."""
    best = max(row["log_likelihood"] for name, row in rows.items() if "log_likelihood" in row and "statsm" not in name)
    print(f"{'':30} {'CPU s':>8} {'ratio':>7} {'nats a bin below the best':>26} {'MiB':>7}")
    for name, row in rows.items():
        if "cpu" not in row:
            print(f"{name:30} {row['failed']}")
            continue
        gap = f"{best - row['log_likelihood']:.1e}" if "statsm" not in name else "(of one neuron)"
        ratio = row["cpu"] / rows["ours, float32"]["cpu"]
        print(f"{name:30} {row['cpu']:8.2f} {ratio:7.1f} {gap:>26} {row['mebibytes']:7.0f}")


def large(bins: int) -> None:
    """N = 100: 50,100 parameters."""
    _, counts = population(100, bins)
    with tempfile.TemporaryDirectory() as folder:
        row = _ours(str(Path(folder) / "counts.npy"), folder, counts, 1.0, torch.float32)
    size = f"{row['parameters']} parameters: {row['cpu']:.1f} CPU s, {row['steps']} steps"
    print(f"\nN = 100, {bins} bins, {size}, {row['left']:.1e} nats left to gain, {row['mebibytes']:.0f} MiB")


def memory(bins: int) -> None:
    """Peak memory at N = 100, features made anew in every pass: by windows of 10, 100 and 400 bins, and by bins."""
    print("\nN = 100 on 5 functions, peak of the process, nothing kept between passes over the bins")
    print(f"{'bins':>8} {'window':>7} {'MiB':>6} {'a matrix of lags alone':>23}")
    _, counts = population(100, 2 * bins)
    peaks: dict[tuple[int, float], float] = {}
    for length, window in ((2 * bins, 0.1), (2 * bins, 1.0), (2 * bins, 4.0), (bins, 1.0)):
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "counts.npy")
            row = _ours(path, folder, counts[:length], window, torch.float32, num_steps=2, stream=True)
        peaks[length, window] = row["mebibytes"]
        lags = 4 * 100 * round(window / 0.01) * length / 2**20
        print(f"{length:8} {round(window / 0.01):7} {row['mebibytes']:6.0f} {lags:23.0f}")
    slope = (peaks[2 * bins, 1.0] - peaks[bins, 1.0]) / bins
    million = peaks[2 * bins, 1.0] + slope * (1_000_000 - 2 * bins)
    print(f"{slope * 2**20:.0f} bytes a bin, 500 of them counts and what is seen; so {million:.0f} MiB at 1,000,000")


def posterior(bins: int) -> None:
    """N = 20: every weight's posterior, part by part."""
    from arviz_stats import ess, rhat

    from inference import mcmc
    from inference.parts import in_parts

    model, counts = population(20, bins)
    data = model.data(counts)
    options: dict[str, Any] = {"num_chains": 16, "num_warmup": 20, "num_samples": 300, "compile": False}
    spent, fit = timed(lambda: in_parts(mcmc.fit, model, data, **options))
    values = np.concatenate([v.flatten(2).numpy() for v in fit.draws.values()], 2)  # (chain, draw, parameters)
    worst = max(float(rhat(values[:, :, i])) for i in range(values.shape[2]))
    least = min(float(ess(values[:, :, i])) for i in range(values.shape[2]))
    draws = f"{options['num_chains']} chains of {options['num_warmup']} + {options['num_samples']} draws"
    size = f"{values.shape[2]} parameters, full posterior, {draws}"
    print(f"\nN = 20, {bins} bins, {size}: {spent:.0f} CPU s, largest R-hat {worst:.3f}, least ESS {least:.0f}")


def _ours(path: str, folder: str, counts: torch.Tensor, window: float, kind: torch.dtype, **options: Any) -> Row:
    np.save(path, counts.to(kind).numpy())
    return _child(sys.executable, {"peer": "ours", "counts": path, "window": window} | options)


def _child(python: str, task: Row) -> Row:
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
