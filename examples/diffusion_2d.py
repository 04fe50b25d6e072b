# %% [markdown]
# # There and back again: diffusion in two dimensions
#
# Eight clusters under growing noise stay a mixture of Gaussians, so the score is known exactly and no network has to
# be trained. What is left is diffusion itself: how the data dissolve, where the score points, which way back a
# sampler takes, and how many evaluations of the score that way costs.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from rich.console import Console

from ppmodels.diffusion.ddim import ddim
from ppmodels.diffusion.likelihood import log_likelihood, standard_normal_prior
from ppmodels.diffusion.mixture import NoisedMixture
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.samplers import ancestral
from ppmodels.diffusion.schedule import linear
from ppmodels.diffusion.sde import VP, probability_flow
from ppmodels.diffusion.solvers import dpmpp_2m, dpmpp_3m, heun, pndm

ANGLE = 2 * torch.pi * torch.arange(8, dtype=torch.float64) / 8
WORLD = NoisedMixture.isotropic(2 * torch.stack([ANGLE.cos(), ANGLE.sin()], -1), scale=0.25)
SCHEDULE = linear(1000)
DENOISER = Denoiser(WORLD.network(SCHEDULE), SCHEDULE)
SOLVERS = {"DDIM": ddim, "Heun": heun, "DPM-Solver++ 2M": dpmpp_2m, "the same, order 3": dpmpp_3m, "PNDM": pndm}
FRAME = {"xlim": (-3.2, 3.2), "ylim": (-3.2, 3.2), "aspect": "equal"}


def main(folder: str | Path = "runs/diffusion_2d", rows: int = 2000, seed: int = 1) -> dict[str, list[float]]:
    """Draw fields, paths and errors into the folder; return every solver's errors by its evaluations."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    generator, evaluations = torch.Generator().manual_seed(seed), (6, 10, 20, 40, 80, 160)
    noise, data = torch.randn(rows, 2, generator=generator).double(), WORLD.sample(rows, generator)[0]
    draw_fields(Path(folder), data, noise)
    draw_paths(Path(folder), data, noise[:5], generator)
    draw_likelihood(Path(folder))

    exact, errors = dpmpp_3m(DENOISER, noise, num_inference_steps=400), {}
    figure, axis = plt.subplots(figsize=(7, 4.6), layout="constrained")
    for name, solver in SOLVERS.items():
        steps = [(n + 1) // 2 if name == "Heun" else n for n in evaluations]  # Heun asks twice a step
        gaps = [solver(DENOISER, noise, num_inference_steps=n) - exact for n in steps]
        errors[name] = [float(gap.square().sum(-1).mean().sqrt()) for gap in gaps]
        axis.loglog(evaluations, errors[name], "o-", ms=4, label=name)
        Console(width=110).print(
            f"{name:18}", *(f"{n}: {e:.5f} " for n, e in zip(evaluations, errors[name], strict=True))
        )
    axis.set(xlabel="evaluations of the score", ylabel="distance from the flow's end point (rms)")
    axis.set_xticks(evaluations, [str(n) for n in evaluations])
    axis.minorticks_off()
    axis.legend()
    figure.savefig(Path(folder) / "errors.png", dpi=150)
    return errors


def draw_fields(folder: Path, data: torch.Tensor, noise: torch.Tensor) -> None:
    """Forward: the data at growing times, and the score that points back."""
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 7.4), layout="constrained", sharex=True, sharey=True)
    grid = torch.cartesian_prod(*[torch.linspace(-3, 3, 17, dtype=torch.float64)] * 2)
    for t, axis in zip((0, 50, 150, 300, 600, 1000), axes.flat, strict=True):
        score = WORLD.score(grid, *SCHEDULE.at(t)[1:])
        size = score.norm(dim=-1)
        axis.scatter(*SCHEDULE.add_noise(data, noise, torch.full((len(data),), t)).T, s=2, alpha=0.4)
        axis.quiver(*grid.T, *(score / size[:, None]).T, size.log(), cmap="Oranges", scale=26, clim=(-4, 4))
        axis.set(title=f"t = {t}, signal {float(SCHEDULE.alpha_bar[t]):.2g}", **FRAME)
    figure.suptitle("Data dissolve (dots); the score points back (arrows, darker where longer)")
    figure.savefig(folder / "score_fields.png", dpi=150)


def draw_paths(folder: Path, data: torch.Tensor, noise: torch.Tensor, generator: torch.Generator) -> None:
    """Reverse: a few ways from the same noise (crosses) to data (dots), with fresh noise and without."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.4), layout="constrained", sharey=True)
    for axis, name, sampler in zip(axes, ("DDPM: a walk", "DDIM: a flow"), (ancestral, ddim), strict=True):
        path = [noise]
        sampler(
            DENOISER, noise, num_inference_steps=200, generator=generator,
            callback=lambda i, t, x, path=path: path.append(x.clone()),
        )  # fmt: skip
        axis.scatter(*data.T, s=3, color="lightgray")
        for way in torch.stack(path).unbind(1):  # (201, 2)
            (line,) = axis.plot(*way.T, lw=0.7)
            axis.plot(*way[0], "x", *way[-1], "o", color=line.get_color())
        axis.set(title=f"{name}, from noise (x) to data (o)", **FRAME)
    figure.savefig(folder / "reverse_paths.png", dpi=150)


def draw_likelihood(folder: Path) -> None:
    """Log densities along two rays at growing times: the truth, and what the flow's change of volume tells."""
    walk, radius = VP(), torch.linspace(0, 3.2, 33, dtype=torch.float64)
    velocity = probability_flow(walk, lambda x, t: WORLD.score(x, *walk.level(t, x)))
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained", sharey=True)
    rays = {"through a cluster": ANGLE[0], "between two clusters": ANGLE[:2].mean()}
    for axis, (name, angle) in zip(axes, rays.items(), strict=True):
        x = radius[:, None] * torch.stack([angle.cos(), angle.sin()])  # (33, 2)
        for k, time in enumerate((1e-5, 0.05, 0.2, 0.5)):
            level = (float(part) for part in walk.level(torch.tensor([time]).double(), x[:1]))
            told = log_likelihood(velocity, x, standard_normal_prior(), start=time, end=1.0)
            axis.plot(radius, WORLD.log_prob(x, *level), color=f"C{k}", label=f"t = {time:g}")
            axis.plot(radius, told.value, "o", ms=3, color=f"C{k}")
        axis.set(title=f"A ray {name}", xlabel="distance from the middle", ylim=(-16, 0))
    axes[0].set_ylabel("log density (line: truth; dots: by the flow)")
    axes[0].legend(title="time of noise")
    figure.savefig(folder / "likelihood.png", dpi=150)


# %%
if __name__ == "__main__":
    main()
