"""Gaussian mixtures beside scikit-learn and pomegranate: seconds to the top from k-means, and memory."""

import time
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from benchmarks._clock import fastest
from benchmarks._record import recorded
from inference import em
from inference.base import joint
from inference.em import Climb
from inference.em.problem import Point, Problem
from ppmodels.base import Data, Theta
from ppmodels.clustering import _covariance
from ppmodels.clustering._statistics import of_labels
from ppmodels.clustering.gmm import GaussianMixture

Table = Literal["memory", "top", "pass"]
SHAPES = [(200_000, 2, 8), (200_000, 25, 8), (100_000, 10, 32), (50_000, 50, 16), (10_000, 100, 10), (1_000_000, 2, 4)]
MEMORY = (100_000, 20, 16)
SHORT = 1e-3  # nats below the best that still count as there
PATIENCE, ENOUGH = 3.0, 20.0  # times our seconds, and seconds, after both of which a peer is not waited for
STEPS = 150  # at most, after which the best known is what was reached


def compare(
    tables: tyro.conf.Positional[tuple[Table, ...]] = ("memory", "top", "pass"), out: Path | None = None
) -> None:
    """Print the tables; one thread, processor seconds.

    Args:
        tables: which; all unless said, memory first, as what is freed hides a peak.
        out: a file for the tables as text.
    """
    runs = {"memory": memory, "top": to_the_top, "pass": per_pass}
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    with recorded(out, "torch", "scikit-learn", "pomegranate"):
        for name in tables:
            runs[name]()


def to_the_top() -> None:
    """Seconds from one start to the best known likelihood."""
    print(f"Seconds from k-means to within {SHORT} nats of the best known log likelihood, full covariance, float64")
    columns = ("log likelihood", 17), ("ours", 7), ("passes", 7), ("scikit-learn", 13), ("passes", 7), ("ratio", 6)
    print(f"{'n, d, k':>18} " + " ".join(f"{name:>{width}}" for name, width in columns))
    ratios = []
    for shape in SHAPES:
        model, data = planted(*shape)
        start = k_means(model, data)
        best, ours, passes = climb(model, data, start)
        theirs, their_passes, there = scikit_learn(data, start, best - SHORT, max(PATIENCE * ours, ENOUGH))
        ratios.append(theirs / ours)
        sign = " " if there else ">"
        print(
            f"{shape!s:>18} {best:>17.3f} {ours:>7.2f} {passes:>7} {sign}{theirs:>12.2f} {their_passes:>7} "
            f"{sign}{ratios[-1]:>5.1f}",
            flush=True,
        )
    print(f"geometric mean of the ratios {np.exp(np.mean(np.log(ratios))):.1f} (target 3), least {min(ratios):.1f}")


def planted(n: int, dim: int, components: int, seed: int = 0) -> tuple[GaussianMixture, Data]:
    """Rows of a mixture whose components overlap, and its model."""
    generator = torch.Generator().manual_seed(seed)
    loc = 3.5 * torch.randn(components, dim, generator=generator) / dim**0.5
    shear = torch.eye(dim) * 0.8 + 0.3 * torch.randn(components, dim, dim, generator=generator) / dim**0.5
    label = torch.randint(components, (n,), generator=generator)
    x = torch.randn(n, dim, generator=generator)
    for k in range(components):
        x[label == k] = x[label == k] @ shear[k] + loc[k]
    return GaussianMixture.for_data(x, components=components), Data(n, observed={"x": x})


def k_means(model: GaussianMixture, data: Data) -> Theta:
    """The start that scikit-learn makes by default."""
    from sklearn.cluster import KMeans

    x, components = data.observed["x"], model.components
    label = torch.as_tensor(KMeans(components, n_init=1, random_state=0).fit(x.numpy()).labels_)
    return model.maximise(of_labels(x, label, components, True), False)


class Clock(Problem):
    """A problem that notes the processor time of every evaluation."""

    def at(self, theta: Theta) -> Point:
        point = super().at(theta)
        self.ticks.append((time.process_time(), point.log_likelihood))
        return point

    @property
    def ticks(self) -> list[tuple[float, float]]:
        return self.__dict__.setdefault("_ticks", [])


def climb(model: GaussianMixture, data: Data, start: Theta) -> tuple[float, float, int]:
    """The top of EM with SQUAREM from a start, the seconds until it is all but reached, and passes over the data."""
    problem = Clock(model, data, joint(model, (data,), {}), False)
    began = time.process_time()
    best = Climb(problem, STEPS, 1e-11, True).climb(start).points[-1].log_likelihood
    place = next(i for i, (_, value) in enumerate(problem.ticks) if value >= best - SHORT)
    return best, problem.ticks[place][0] - began, place + 1


def scikit_learn(data: Data, start: Theta, target: float, patience: float) -> tuple[float, int, bool]:
    """Seconds and passes until its own two steps reach the target, and whether they did."""
    from sklearn.mixture import GaussianMixture as Peer

    x, factor = data.observed["x"].numpy(), _covariance.whitening(start, "full", start["loc"].shape[1])
    peer = Peer(len(start["weights"]), reg_covar=0.0)
    peer.weights_, peer.means_ = start["weights"].numpy(), start["loc"].numpy()
    peer.precisions_cholesky_ = factor.mT.numpy()
    began, passes = time.process_time(), 0
    while True:
        mean, log_resp = peer._e_step(x)
        passes += 1
        seconds = time.process_time() - began
        if mean * len(x) >= target or seconds > patience:
            return seconds, passes, mean * len(x) >= target
        peer._m_step(x, log_resp)


def per_pass() -> None:
    """Milliseconds of one E and M step, with pomegranate where it is installed."""
    print("\nOne E and M step, milliseconds")
    print(f"{'n, d, k':>18} {'ours':>7} {'scikit-learn':>13} {'pomegranate f32':>16}")
    for shape in SHAPES:
        model, data = planted(*shape)
        start = model.start(data)
        ours = fastest(lambda: model.maximise(model.statistics(start, data)[0], False), 2)  # noqa: B023
        theirs = scikit_learn(data, start, np.inf, 0.0)[0] + scikit_learn_step(data, start)
        print(f"{shape!s:>18} {1e3 * ours:>7.0f} {1e3 * theirs:>13.0f} {pomegranate(data, start):>16}", flush=True)


def scikit_learn_step(data: Data, start: Theta) -> float:
    """Seconds of its M step."""
    from sklearn.mixture import GaussianMixture as Peer

    x, q = data.observed["x"].numpy(), torch.rand(data.rows, len(start["weights"]))
    peer = Peer(len(start["weights"]), reg_covar=0.0)
    log_resp = (q / q.sum(-1, keepdim=True)).log().numpy()
    return fastest(lambda: peer._m_step(x, log_resp), 1)


def pomegranate(data: Data, start: Theta) -> str:
    """Milliseconds of its step, in the only precision it has."""
    try:
        from pomegranate.distributions import Normal
        from pomegranate.gmm import GeneralMixtureModel
    except ImportError:
        return "not installed"
    torch.set_num_threads(1)  # its import says two
    torch.set_default_dtype(torch.float32)
    factor = _covariance.whitening(start, "full", start["loc"].shape[1])
    covariances = _covariance.covariance(factor, triangular=True).float()
    parts = [Normal(m.float(), c, covariance_type="full") for m, c in zip(start["loc"], covariances, strict=True)]
    peer, x = GeneralMixtureModel(parts, priors=start["weights"].float()), data.observed["x"].float()
    seconds = fastest(lambda: (peer.summarize(x), peer.from_summaries()), 1)
    torch.set_default_dtype(torch.float64)
    return f"{1e3 * seconds:.0f}"


def memory() -> None:
    """Peak memory over that of the data, of a whole fit."""
    model, data = planted(*MEMORY)
    em.fit(model, planted(2000, *MEMORY[1:])[1], num_restarts=1, num_steps=4)  # what is imported once is not counted
    from sklearn.mixture import GaussianMixture as Peer

    x = data.observed["x"].numpy()
    ours = peak(lambda: em.fit(model, data, num_restarts=1, num_steps=4))
    theirs = peak(lambda: Peer(MEMORY[2], max_iter=4, init_params="k-means++").fit(x))
    print(f"\nPeak memory over the data at {MEMORY}: ours {ours:.0f} MB (target 60), scikit-learn {theirs:.0f} MB")


def peak(run: Any) -> float:
    """The most memory that a call held at once, beyond what was held before, in MB (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run()
    return (resident("VmHWM") - before) / 1024


def resident(name: str) -> int:
    """A line of the process's status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
