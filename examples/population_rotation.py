# %% [markdown]
# # Which way does a population turn? Latents of single trials, three ways
#
# Thirty simulated neurons follow a rotation, 1.5 turns a second, that starts anywhere; trials end when they end.
# A Poisson state space knows of dynamics and of spikes, GPFA of smoothness alone, a hidden Markov model cuts the
# circle into states. How well does each tell the rates behind the spikes, and how fast does the population turn?

# %%
import math
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from inference import em, plots
from inference.predict import computed
from ppmodels import Data
from ppmodels.population.gpfa import GaussianProcessFactorAnalysis
from ppmodels.population.hmm import HiddenMarkovModel
from ppmodels.population.poisson_state_space import PoissonStateSpace
from ppmodels.population.trials import stack

BIN, TURNS = 0.02, 1.5  # seconds, turns a second


def simulated(trials: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Spikes and rates (T_k, 30) of trials of 0.5 to 1 s."""
    g = torch.Generator().manual_seed(seed)
    prefer = torch.linspace(0, 2 * math.pi, 31, dtype=torch.float64)[:30]
    spikes, rates = [], []
    for length in torch.randint(25, 50, (trials,), generator=g).tolist():
        time = BIN * torch.arange(length, dtype=torch.float64)
        angle = 2 * math.pi * (torch.rand(1, generator=g).double() + TURNS * time)
        rates.append((2.3 + 1.1 * torch.cos(angle[:, None] - prefer)).exp())  # Hz
        spikes.append(torch.poisson(rates[-1] * BIN, generator=g))
    return spikes, rates


def main(folder: str | Path = "runs/population_rotation", trials: int = 60) -> dict[str, float]:
    """Fit three models by EM, print how much of the rates each explains, and write pictures of latents and states."""
    spikes, rates = simulated(trials)
    y, coords = stack(spikes, BIN)
    truth, seen = stack(rates)[0], ~y.isnan()
    counts = PoissonStateSpace.for_data(y, BIN, latents=2)
    lds = em.fit(counts, Data.of(counts, y=y, coords=coords), num_restarts=1, tol=1e-5, num_steps=60)
    roots = GaussianProcessFactorAnalysis.for_data(y.sqrt(), BIN, latents=2)
    gpfa = em.fit(roots, Data.of(roots, y=y.sqrt(), coords=coords), num_restarts=1, tol=1e-6)
    cut = HiddenMarkovModel.for_data(y, BIN, states=6)
    hmm = em.fit(cut, Data.of(cut, y=y, coords=coords), num_restarts=4, tol=1e-7)

    one, two, three = ({k: v[0, 0] for k, v in {**computed(fit), **fit.draws}.items()} for fit in (lds, gpfa, hmm))
    path, loading, told = counts.path(one, lds.data), one["loading"], {}
    half = 0.5 * torch.einsum("np,rtpq,nq->rtn", loading, path.cov, loading)
    told["Poisson state space"] = (path.mean @ loading.mT + one["offset"] + half).exp()
    root = roots.path(two, gpfa.data).mean @ two["loading"].mT + two["offset"]
    told["GPFA"] = (root.square() + two["noise"].square()) / BIN  # E y = (E y^1/2)^2 + Var y^1/2
    told["hidden Markov, 6 states"] = cut.state_probabilities(three, hmm.data) @ three["rate"]
    explained = {}
    for name, rate in told.items():
        error = (rate - truth)[seen].square().mean()
        explained[name] = float(1 - error / truth[seen].var())
    turns = torch.linalg.eigvals(one["dynamics"]).angle().abs().max() / (2 * math.pi * BIN)

    console = Console(width=100)
    for name, share in explained.items():
        console.print(f"{name:>24} explains {share:.1%} of the true rates' variance")
    console.print(f"The dynamics turn {float(turns):.2f} times a second; the truth is {TURNS}.")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    plots.trajectories(lds).savefig(place / "trajectories.png")
    plots.orbits(lds).savefig(place / "orbits.png")
    plots.states(hmm).savefig(place / "states.png")
    console.print(f"Pictures are in {place}.")
    return explained


if __name__ == "__main__":
    main()
