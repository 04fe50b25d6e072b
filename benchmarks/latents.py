"""Latents of populations: GPFA beside elephant, a linear dynamical system beside dynamax, 15 exact Ising cells."""

import math
import os
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks import _clock
from benchmarks._latents.peers import dynamax_em, dynamax_values, elephant_em, elephant_theta
from benchmarks._record import recorded
from inference import em
from inference.base import fresh
from ppmodels.base import Data
from ppmodels.population._readings import Readings
from ppmodels.population._smoothing import smooth
from ppmodels.population._system_maximise import expect, maximise
from ppmodels.population._word_fit import WordMoments, law_of
from ppmodels.population.gpfa import GaussianProcessFactorAnalysis
from ppmodels.population.linear_system import LinearSystem
from ppmodels.population.maximum_entropy import PairwiseMaximumEntropy, features, words

os.environ.setdefault("JAX_PLATFORMS", "cpu")
F64 = torch.float64
STEPS = 50  # of EM, both from the same start
Part = Literal["gpfa", "lds", "ising"]
timed = partial(_clock.timed, runs=20, limit=2.0)  # fewer runs of what takes long


def compare(parts: tyro.conf.Positional[tuple[Part, ...]] = ("gpfa", "lds", "ising"), out: Path | None = None) -> None:
    """Print the tables: processor seconds on one core, compilation left out, and how far the answers differ.

    Args:
        parts: which of the tables.
        out: a file for the tables as text.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    torch.set_num_threads(1)
    with recorded(out, "torch", "elephant", "dynamax", "jax", "scipy"):
        for name in parts:
            {"gpfa": gpfa, "lds": lds, "ising": ising}[name]()
            print()


def gpfa() -> None:
    """Trials (R, T, N) of P latents: the same number of EM steps from the same start, then to convergence."""
    print(f"GPFA, {STEPS} EM steps from one start (plain), and to convergence (tol 1e-8): processor seconds")
    print(
        f"{'R, T, N, P':>18} {'ours':>7} {'elephant':>9} {'ratio':>6} {'log p':>13} {'elephant':>13} {'d log tau':>9}"
    )
    for trials, bins, neurons, latents in ((50, 50, 30, 3), (50, 100, 40, 5)):
        y, model, theta = gaussian_process_data(trials, bins, neurons, latents)
        data = Data.of(model, y=y)
        ours, found = timed(lambda: plain_em(model, theta, data, STEPS))  # noqa: B023
        peer, (parameters, *_) = timed(lambda: elephant_em(y, model, theta, STEPS))  # noqa: B023
        scales = 0.02 / np.sqrt(np.asarray(parameters["gamma"]).reshape(-1))
        worst = np.abs(np.log(np.sort(scales) / np.sort(found["timescale"].numpy()))).max()
        heights = [float(model.e_step(found, data)[1]), float(model.e_step(elephant_theta(parameters), data)[1])]
        size = f"{trials}, {bins}, {neurons}, {latents}"
        row = f"{ours:>7.2f} {peer:>9.2f} {peer / ours:>6.1f} {heights[0]:>13.3f} {heights[1]:>13.3f}"
        print(f"{size:>18} {row} {worst:>9.1e}")
        if bins == 50:
            ours, fit = timed(lambda: em.fit(model, data, num_restarts=1, tol=1e-8))  # noqa: B023
            peer, (parameters, *_) = timed(lambda: elephant_em(y, model, theta, 500))  # noqa: B023
            heights = [fit.info["log_likelihood"], float(model.e_step(elephant_theta(parameters), data)[1])]
            row = f"{ours:>7.2f} {peer:>9.2f} {peer / ours:>6.1f} {heights[0]:>13.3f} {heights[1]:>13.3f}"
            print(f"{'to convergence':>18} {row}")


def lds() -> None:
    """Trials (R, T, N) of P latents: the posterior of all paths, and EM steps."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from dynamax.linear_gaussian_ssm import LinearGaussianSSM, lgssm_smoother

    print("Gaussian LDS: the smoother with lag-one covariances, and 10 EM steps (dynamax: a full R): processor seconds")
    print(
        f"{'R, T, N, P':>18} {'smooth':>8} {'dynamax':>8} {'ratio':>6} {'EM':>7} {'dynamax':>8} {'ratio':>6}"
        f" {'d log p':>8} {'d mean':>8} {'d A, 1 step':>11}"
    )
    for trials, bins, neurons, latents in ((1, 1000, 10, 4), (50, 100, 20, 4), (100, 200, 60, 8), (1, 5000, 60, 8)):
        system, y = linear_data(trials, bins, neurons, latents)
        emissions = y.numpy()
        peer = LinearGaussianSSM(latents, neurons, has_dynamics_bias=False)
        parameters, properties = peer.initialize(**dynamax_values(system, peer))
        smoother = jax.jit(jax.vmap(lambda e: lgssm_smoother(parameters, e)))  # noqa: B023
        smoother(emissions).smoothed_means.block_until_ready()
        theirs, found = timed(lambda: jax.block_until_ready(smoother(emissions)))  # noqa: B023
        ours, path = timed(lambda: smooth(system, Readings.of(y, False)).moments())  # noqa: B023
        differ = float(np.abs(np.asarray(found.marginal_loglik) - path.log_likelihood.numpy()).max())
        away = float(np.abs(np.asarray(found.smoothed_means) - path.mean.numpy()).max())

        initial = "free" if trials > latents else "innovation"
        em_ours, _ = timed(lambda: free_em(system, y, initial, 10))  # noqa: B023
        em_peer, _ = timed(dynamax_em(peer, parameters, properties, emissions, 10))
        step = dynamax_em(peer, parameters, properties, emissions, 1)().dynamics.weights
        drift = float(np.abs(np.asarray(step) - free_em(system, y, initial, 1).dynamics.numpy()).max())
        size = f"{trials}, {bins}, {neurons}, {latents}"
        print(
            f"{size:>18} {ours:>8.3f} {theirs:>8.3f} {theirs / ours:>6.1f} {em_ours:>7.3f} {em_peer:>8.3f}"
            f" {em_peer / em_ours:>6.1f} {differ:>8.1e} {away:>8.1e} {drift:>11.1e}"
        )


def ising() -> None:
    """Fifteen simulated cells, 40,000 words: the exact optimum, beside L-BFGS on the table of all words."""
    from scipy.optimize import minimize

    torch.manual_seed(0)
    cells = PairwiseMaximumEntropy(torch.randn(15, dtype=F64) - 2.5, 0.5 * torch.randn(105, dtype=F64))
    seen = cells.sample(40_000)
    ours, found = timed(lambda: WordMoments.of(seen).maximise())
    table, mean = features(words(15)).numpy(), features(seen).mean(0).numpy()

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        score = table @ x
        top = score.max()
        weight = np.exp(score - top)
        total = weight.sum()
        return top + math.log(total) - mean @ x, (weight / total) @ table - mean

    options = {"maxiter": 20_000, "maxfun": 20_000, "gtol": 1e-8, "ftol": 1e-15, "maxcor": 20}
    theirs, peer = timed(lambda: minimize(loss, np.zeros(120), jac=True, method="L-BFGS-B", options=options))
    print("Ising, 15 cells, 40,000 words, exact: processor seconds (data to parameters), and the moments' worst miss")
    print(f"{'':>24} {'seconds':>8} {'miss':>9} {'entropy, bits':>14}")
    for name, seconds, x in (("ours", ours, found), ("scipy L-BFGS, 2^15 table", theirs, torch.tensor(peer.x))):
        law = law_of(x, 15)
        miss = float((law.moments() - torch.tensor(mean)).abs().max())
        print(f"{name:>24} {seconds:>8.2f} {miss:>9.1e} {float(law.entropy()) / math.log(2):>14.6f}")
    print(f"ratio {theirs / ours:.0f}; parameters differ by {float((found - torch.tensor(peer.x)).abs().max()):.1e}")


def gaussian_process_data(trials: int, bins: int, neurons: int, latents: int) -> tuple[Tensor, Any, dict[str, Tensor]]:
    """Trials of a GPFA, its model, and a start that is not the truth."""
    torch.manual_seed(1)
    model = GaussianProcessFactorAnalysis(neurons=neurons, latents=latents, bins=bins)
    scales = torch.logspace(math.log10(0.3), math.log10(0.06), latents, dtype=F64)
    truth = {
        "timescale": scales,
        "loading": torch.randn(neurons, latents, dtype=F64),
        "offset": torch.randn(neurons, dtype=F64),
        "noise": torch.full((neurons,), 0.8, dtype=F64),
    }
    readout = model.readout(truth)
    roots = torch.linalg.cholesky(readout.kernel)
    path = (roots @ torch.randn(trials, latents, bins, 1, dtype=F64))[..., 0].mT
    y = path @ readout.loading.mT + readout.offset + 0.8 * torch.randn(trials, bins, neurons, dtype=F64)
    model = GaussianProcessFactorAnalysis.for_data(y, bin_size=0.02, latents=latents)
    with fresh(model, (y,), seed=3):
        return y, model, model.start(Data.of(model, y=y))


def plain_em(model: Any, theta: dict[str, Tensor], data: Data, steps: int) -> dict[str, Tensor]:
    """So many EM steps."""
    for _ in range(steps):
        theta = model.m_step(model.e_step(theta, data)[0], data, False)
    return theta


def linear_data(trials: int, bins: int, neurons: int, latents: int) -> tuple[LinearSystem, Tensor]:
    """A stable system and trials of it."""
    torch.manual_seed(2)
    eye = torch.eye(latents, dtype=F64)
    turn = torch.linalg.qr(torch.randn(latents, latents, dtype=F64))[0]
    loading = 0.5 * torch.randn(neurons, latents, dtype=F64)
    rest = (torch.randn(neurons, dtype=F64), torch.full((neurons,), 0.7, dtype=F64))
    system = LinearSystem(0.95 * turn, 0.3 * eye, torch.zeros(latents, dtype=F64), eye, loading, *rest)
    y = system.sample_path(bins, torch.Size([trials])) @ loading.mT + rest[0]
    return system, y + rest[1].sqrt() * torch.randn_like(y)


def free_em(system: LinearSystem, y: Tensor, initial: str, steps: int) -> LinearSystem:
    """EM steps in whatever coordinates, as dynamax takes them: the models' own E and M steps."""
    for _ in range(steps):
        system = maximise(expect(system, Readings.kept(y, False), {})[0], initial)
    return system
