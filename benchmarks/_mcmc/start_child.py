"""Start one sampler on one posterior in a process of its own: empty compile caches, one thread, a time limit."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

ONE_THREAD = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
}


def run(sampler: str, problem: str, limit: float, *flags: str) -> dict[str, Any]:
    """Return what the child found, or {"why_not": reason}."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        command = [sys.executable, "-m", "benchmarks._mcmc.child", sampler, problem, str(answer), *flags]
        with Path(folder, "errors").open("w+") as errors:
            try:
                child = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=_environment(folder),
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
                child.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, 9)
                child.wait()
                return {"why_not": f"not finished within {limit:.0f} s"}
            if answer.exists():
                return json.loads(answer.read_text())
            errors.seek(0)
            lines = [line for line in errors.read().splitlines() if "Error" in line]
            return {"why_not": lines[-1][:200] if lines else f"ended with {child.returncode}"}


def _environment(folder: str) -> dict[str, str]:
    """Caches in a folder that is empty; one thread, and one processor for XLA."""
    caches = {
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        "PYTENSOR_FLAGS": f"base_compiledir={folder}/pytensor",
        "NUMBA_CACHE_DIR": f"{folder}/numba",
        "XDG_CACHE_HOME": f"{folder}/cache",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
        "JAX_PLATFORMS": "cpu",
    }
    return os.environ | ONE_THREAD | caches
