# %% [markdown]
# # Digits read pixel by pixel: which one was it, and how sure may one be?
#
# 1797 real digits of 8 by 8 pixels, each told as a sequence of 64 grey values. A state space (S4D) of two layers
# reads them and `svi` learns it. Then the last layer alone is made Bayesian by Laplace's approximation: the same
# model, another back end. It is as often right as the point, less sure of its mistakes, and of all else a little.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from pyro.infer.autoguide import AutoDelta
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor

from inference import laplace, svi
from inference.base import Fit
from inference.training import warmup_cosine
from ppmodels.base import Data
from ppmodels.nn.parameter_groups import parameter_options
from ppmodels.sequence.sequence_regression import SequenceRegression

TRAINED, EPOCHS, BATCH = 1437, 30, 60


def main(folder: str | Path = "runs/digit_sequences", epochs: int = EPOCHS) -> dict[str, float]:
    """Learn, make the last layer Bayesian, print the scores of 360 held-out digits, draw; return the accuracies."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data[..., None] / 16, dtype=torch.float32), torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    seen, new = order[:TRAINED], order[TRAINED:]

    model = SequenceRegression(features=1, dim=10, emission="categorical", pool="mean", width=64, layers=2, modes=16)
    steps = epochs * -(-TRAINED // BATCH)
    training = {
        "groups": parameter_options(model.body, "network$$$", lr=1e-2), "optimiser": torch.optim.AdamW,
        "schedule": warmup_cosine(steps // 20, steps), "clip": 1.0,
    }  # fmt: skip
    data = Data.of(model, x=x[seen], y=y[seen])
    point = svi.fit(
        model, data, guide=AutoDelta, batch_size=BATCH, num_steps=steps, num_samples=1, training=training,
        progress_bar=True,
    )  # fmt: skip
    told: SequenceRegression = point.model
    bayesian = laplace.fit(told.fixed_at(told.body), data, num_samples=200, num_restarts=1)

    fits = {"point": point, "Bayesian last layer": bayesian}
    table, truth, accuracy = Table("last layer", "accuracy", "log score, nats", "surest mistake"), y[new], {}
    for name, fit in fits.items():
        p = predictive(fit, told.pooled(x[new]).detach())
        wrong = p.argmax(-1) != truth
        accuracy[name] = 1 - float(wrong.double().mean())
        score = float(p.gather(1, truth[:, None]).log().mean())
        table.add_row(name, f"{accuracy[name]:.3f}", f"{score:.4f}", f"{float(p[wrong].amax()):.2f}")
    Console().print(table)
    draw(told, x[new], truth, fits).savefig(Path(folder) / "digit_sequences.png", dpi=150)
    return accuracy


@torch.no_grad()
def predictive(fit: Fit, features: Tensor) -> Tensor:
    """Probability of each class at features (..., H), averaged over the draws of the last layer, (..., 10)."""
    weight, bias = (fit.draws[site][0] for site in ("weight", "bias"))
    draws = zip(weight, bias, strict=True)
    return torch.stack([(features.to(w.dtype) @ w.T + b).softmax(-1) for w, b in draws]).mean(0)


@torch.no_grad()
def draw(model: SequenceRegression, x: Tensor, truth: Tensor, fits: dict[str, Fit]) -> Figure:
    """The network's kernels, what it knows after so many pixels, and the digits that it is least sure of."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    kernels = torch.cat([layer.ssm.kernel(64) for layer in model.body.layers])
    order = kernels.square().cumsum(-1).gt(kernels.square().sum(-1, keepdim=True) / 2).int().argmax(-1).argsort()
    kernels = kernels / kernels.abs().amax(-1, keepdim=True)
    axes[0].imshow(kernels[order], aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    axes[0].set(xlabel="lag in pixels", ylabel="channel, by how far back it looks", title="Kernels, each over its peak")
    read = model.body(x).cumsum(1) / torch.arange(1, 65)[:, None]  # what is known after so many pixels, (N, 64, H)
    for (name, fit), color in zip(fits.items(), ("C0", "C1"), strict=True):
        p = predictive(fit, read).gather(-1, truth[:, None, None].expand(-1, 64, 1))[..., 0]
        low, middle, high = p.quantile(torch.tensor([0.25, 0.5, 0.75]), dim=0)
        axes[1].plot(middle, color=color, label=name)
        axes[1].fill_between(range(64), low, high, color=color, alpha=0.2, lw=0)
    axes[1].set(xlabel="pixels read", ylabel="probability of the truth: median, quartiles", title="When is it known?")
    axes[1].legend()
    p = predictive(fits["Bayesian last layer"], model.pooled(x))
    unsure = p.max(-1).values.argsort()[:12]
    cells = torch.nn.functional.pad(x[unsure, :, 0].reshape(3, 4, 8, 8), (1, 1, 3, 0))  # (3, 4, 11, 10)
    axes[2].imshow(cells.permute(0, 2, 1, 3).reshape(33, 40), cmap="gray_r")
    for i, row in enumerate(unsure.tolist()):
        first, second = p[row].topk(2).indices.tolist()
        color = "black" if first == truth[row] else "C3"
        axes[2].text(
            10 * (i % 4) + 5, 11 * (i // 4) + 1, f"{first}, or {second}", color=color, ha="center", va="center"
        )
    axes[2].set(title="The least sure: its guesses (red: wrong)", xticks=[], yticks=[])
    return figure


# %%
if __name__ == "__main__":
    main()
