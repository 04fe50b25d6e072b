# %% [markdown]
# # Digits out of noise
#
# 1797 real digits of 8 by 8 pixels. A diffusion transformer learns to say what is noise in a digit of which it is told
# the class, and one time in ten is not; so one network draws digits of any class, with as much stress on the class as
# is wanted, by an average of its weights. And the flow from digits to noise gives each digit its likelihood: under
# the right class, under the wrong ones, and for pictures that are no digits.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from inference.plots.images import images
from inference.training import Training, warmup_cosine
from ppmodels.diffusion.guidance import drop_labels
from ppmodels.diffusion.likelihood import log_likelihood, standard_normal_prior
from ppmodels.diffusion.loss import noise_loss
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.samplers import sample
from ppmodels.diffusion.schedule import linear
from ppmodels.diffusion.sde import VP, probability_flow
from ppmodels.diffusion.solvers import dpmpp_2m
from ppmodels.nn.dit import DiffusionTransformer

SHAPE, TRAINED, SCHEDULE, WALK = (1, 8, 8), 1437, linear(1000), VP()  # one noise, in steps and in continuous time
SCALES, EACH = (0.0, 1.0, 3.0), 20


def main(folder: str | Path = "runs/diffusion_digits", num_steps: int = 2500) -> dict[float, float]:
    """Learn, draw digits of every class, judge and show them; return the share that is taken for its class."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    digits, order = load_digits(), torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x = torch.tensor(digits.images[:, None] / 8 - 1, dtype=torch.float32)[order]  # in [-1, 1]
    y, console, taken = torch.tensor(digits.target)[order], Console(width=110), {}
    network, run = learn(x[:TRAINED], y[:TRAINED], num_steps)
    judge = KNeighborsClassifier(3).fit(x[:TRAINED].flatten(1), y[:TRAINED])
    console.print(
        f"real digits that were held out: {judge.score(x[TRAINED:].flatten(1), y[TRAINED:]):.3f} are told apart"
    )
    label = torch.arange(10).repeat_interleave(EACH)
    with run.averaged(), torch.no_grad():
        drawn = {scale: draw(network, label, scale) for scale in SCALES}
        pictures = {"there_and_back": paths(network, x[TRAINED:], y[TRAINED:])}
        pictures["likelihoods"] = likelihoods(network, x[TRAINED:], y[TRAINED:], -run.curves()["objective"], console)
    for scale, told in drawn.items():
        taken[scale] = judge.score(told.flatten(1), label)
        console.print(f"drawn with guidance_scale {scale}: {taken[scale]:.3f} are taken for the class that was asked")
    by_class = [torch.cat([drawn[scale][k * EACH :][:7] for scale in SCALES[1:]]).flatten(1) for k in range(10)]
    title = "drawn by class, guidance_scale 1 (left half) and 3"
    pictures["drawn"] = images(by_class, SHAPE[1:], [str(k) for k in range(10)], title)
    for name, picture in pictures.items():
        picture.savefig(Path(folder) / f"{name}.png", dpi=150)
    return taken


def learn(x: Tensor, y: Tensor, num_steps: int) -> tuple[DiffusionTransformer, Training]:
    """A network of v that is told the class nine times in ten, and its run, which holds the average of the weights."""
    torch.manual_seed(0)
    network = DiffusionTransformer(SHAPE, patch=2, width=64, layers=3, heads=4, labels=10)

    def loss(rows: Tensor) -> Tensor:
        label = drop_labels(y[rows], network.null_label)
        return noise_loss(Denoiser(lambda noisy, t: network(noisy, t, label), SCHEDULE, "v"), x[rows]).mean()

    run = Training(
        num_steps, 2e-3, rows=len(x), batch_size=64, ema=0.995, clip=1.0,
        schedule=warmup_cosine(num_steps // 25, num_steps, 0.05),
        progress_bar=True,
    )  # fmt: skip
    return network, run.run(loss, network)


def draw(network: DiffusionTransformer, label: Tensor, scale: float) -> Tensor:
    """Digits of these classes, (B, 1, 8, 8)."""
    return sample(
        network, SCHEDULE, (len(label), *SHAPE), num_inference_steps=20, prediction_type="v", label=label,
        guidance_scale=scale, null_label=network.null_label, generator=torch.Generator().manual_seed(1),
    )  # fmt: skip


def paths(network: DiffusionTransformer, x: Tensor, y: Tensor) -> Figure:
    """Digits that dissolve, and what is made of their last noise: a digit of the same class."""
    some, label, rows, path = x[:3], y[:3], [], []
    noise = torch.randn(some.shape, generator=torch.Generator().manual_seed(2))
    times = [0, 50, 100, 200, 300, 400, 500, 600, 800, 1000]
    forward = torch.stack([SCHEDULE.add_noise(some, noise, torch.full((3,), t)) for t in times], 1)
    told = Denoiser(lambda noisy, t: network(noisy, t, label), SCHEDULE, "v")
    dpmpp_2m(told, forward[:, -1], num_inference_steps=9, callback=lambda i, t, state: path.append(state))
    backward = torch.stack([forward[:, -1], *path], 1)
    for k in range(3):
        rows += [forward[k].flatten(1), backward[k].flatten(1)]
    names = [name for digit in label.tolist() for name in (f"{digit} forward", f"{digit} backward")]
    return images([row.clamp(-2, 2) for row in rows], SHAPE[1:], names, "to noise, and from it")


def likelihoods(network: DiffusionTransformer, x: Tensor, y: Tensor, curve: Tensor, console: Console) -> Figure:
    """Nats of real digits under each class, and of pictures that are none, by the flow; four random probes."""
    grain = 2 / 16 * torch.rand(x[:12].shape, generator=torch.Generator().manual_seed(3)) - 1 / 16  # grey has 17 steps
    some, label = (x[:12] + grain).double(), y[:12]
    network = network.double()
    kinds = {"its own class": (some, label), "no class": (some, torch.full_like(label, network.null_label))}
    kinds |= {"the next class": (some, (label + 1) % 10), "upside down": (some.flip(-2), label)}
    kinds["pixels shuffled"] = (some.flatten(1)[:, torch.randperm(64)].reshape(some.shape), label)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for k, (name, (rows, told)) in enumerate(kinds.items()):

        def score(noisy: Tensor, t: Tensor, told: Tensor = told) -> Tensor:
            alpha, sigma = WALK.level(t, noisy)
            return -(alpha * network(noisy, 1000 * t, told) + sigma * noisy) / sigma  # of v, at unit alpha^2 + sigma^2

        found = log_likelihood(
            probability_flow(WALK, score),
            rows,
            standard_normal_prior(),
            start=1e-3,
            end=1.0,
            rtol=1e-3,
            atol=1e-3,
            num_probes=4,
            generator=torch.Generator().manual_seed(4),
        )
        console.print(f"{name:16} {float(found.value.mean()):8.2f} nats a picture, {found.evaluations} evaluations")
        axes[1].plot(found.value, torch.full((12,), -float(k)), "o", alpha=0.6)
        axes[1].plot(float(found.value.median()), -k, "k|", ms=18)
    axes[1].set_yticks([-k for k in range(len(kinds))], list(kinds))
    axes[1].set(xlabel="log likelihood of a picture, nats (bar: median)", title="Twelve held-out digits")
    network.float()
    axes[0].semilogy(curve.unfold(0, 50, 1).mean(-1), lw=1)
    axes[0].set(xlabel="step", ylabel="squared error of v", title="Learning")
    return figure


# %%
if __name__ == "__main__":
    main()
