"""One fit in a process of its own: CPU seconds, mean log likelihood a bin, and the peak of memory, as JSON.

Runs under the interpreter of the peer; ours needs this project, the peers only NumPy and themselves.
"""

import json
import resource
import sys
import time

import numpy as np


def ours(counts: np.ndarray, task: dict) -> dict:
    """The mode; task["stream"] makes features anew in every pass, task["num_steps"] ends it early, and unscored."""
    import torch

    from benchmarks._glm.problem import population
    from ppmodels.population import _bank, _newton

    torch.set_num_threads(1)
    model, _ = population(counts.shape[1], 200, task["window"])
    data = model.data(torch.as_tensor(counts))
    _bank.KEPT = 0 if task.get("stream") else _bank.KEPT
    start = time.process_time()
    peak = _newton.peak(model, data, num_steps=task.get("num_steps", 200))
    spent = time.process_time() - start
    size = sum(value.numel() for value in peak.theta.values())
    found = {"cpu": spent, "steps": peak.steps, "left": peak.decrement, "parameters": size}
    return found if "num_steps" in task else found | likelihood(model, data, peak.theta)


def likelihood(model: object, data: object, theta: dict) -> dict:
    """Mean log likelihood of a bin and neuron, in float64, row by row."""
    import torch

    total, seen = 0.0, 0
    own = {name: value.double() for name, value in theta.items()}
    rows = data.observed["counts"].shape[0]
    for row in range(0, rows, 10):
        given = {name: value[row : row + 10].double() for name, value in data.given.items()}
        y = data.observed["counts"][row : row + 10].double()
        law = model.population(own, type(data)(len(y), given))
        total += float(law.log_prob(y).sum())
        seen += int(torch.as_tensor(given["seen"]).sum())
    return {"log_likelihood": total / seen}


def nemos(counts: np.ndarray, task: dict) -> dict:
    """PopulationGLM by L-BFGS on the same features, by default but for what the task says; the last, compiled call."""
    import jax

    jax.config.update("jax_enable_x64", task["x64"])
    import nemos as nmo

    x, y = np.load(task["features"]), np.load(task["target"])
    kind = np.float64 if task["x64"] else np.float32
    x, y = x.astype(kind), y.astype(kind)
    if task.get("warm"):  # compile, where a whole fit would take long
        nmo.glm.PopulationGLM(solver_name="LBFGS", solver_kwargs={"maxiter": 1}).fit(x, y)
    spent, model = [], None
    for _ in range(task.get("repeats", 1)):
        start = time.process_time()
        model = nmo.glm.PopulationGLM(solver_name="LBFGS", solver_kwargs=task.get("options", {})).fit(x, y)
        spent.append(time.process_time() - start)
    return {
        "cpu": spent[-1],
        "log_likelihood": mean_log_likelihood(x, y, np.asarray(model.coef_), np.asarray(model.intercept_)),
    }


def statsmodels(counts: np.ndarray, task: dict) -> dict:
    """GLM by IRLS, a neuron at a time; the first few are timed, and the rest are as many again."""
    import statsmodels.api as sm

    x, y = sm.add_constant(np.load(task["features"]).astype(float)), np.load(task["target"]).astype(float)
    start, some = time.process_time(), task["neurons"]
    fits = [sm.GLM(y[:, n], x, family=sm.families.Poisson()).fit() for n in range(some)]
    spent = (time.process_time() - start) * y.shape[1] / some
    coef = np.stack([fit.params for fit in fits], 1)
    return {"cpu": spent, "log_likelihood": mean_log_likelihood(x[:, 1:], y[:, :some], coef[1:], coef[0])}


def mean_log_likelihood(x: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: np.ndarray) -> float:
    """Of a bin and neuron, without log y!, in float64."""
    total = 0.0
    for part in np.array_split(np.arange(len(x)), 20):
        drive = x[part].astype(float) @ coef.astype(float) + intercept.astype(float)
        total += float((y[part] * drive - np.exp(drive)).sum())
    return total / y.size


def main() -> None:
    """Read the task from the command line, and print the answer."""
    task = json.loads(sys.argv[1])
    counts = np.load(task["counts"]) if "counts" in task else np.zeros((0, 0))
    found = {"ours": ours, "nemos": nemos, "statsmodels": statsmodels}[task["peer"]](counts, task)
    print(json.dumps(found | {"mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
