"""Diffusion: a sampler's own cost a step beside diffusers', quality by evaluations, a training step beside a peer's."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from benchmarks._clock import timed
from benchmarks._record import recorded
from ppmodels.diffusion import solvers
from ppmodels.diffusion.ddim import ddim
from ppmodels.diffusion.distance import sliced_wasserstein
from ppmodels.diffusion.loss import noise_loss
from ppmodels.diffusion.mixture import NoisedMixture
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.samplers import ancestral
from ppmodels.diffusion.schedule import linear
from ppmodels.nn.unet import UNet

SHAPES, STEPS = ((64, 2), (4, 3, 32, 32)), 50
ROWS, SIDE = 16, 16  # of a training batch
SAME = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
SCHEDULE = linear()


def compare(out: Path | None = None) -> None:
    """Print the tables; one thread, processor time.

    Args:
        out: a file for the tables as text.
    """
    torch.set_num_threads(1)
    with recorded(out, "torch", "diffusers", "denoising-diffusion-pytorch"):
        overhead()
        quality()
        training()


def overhead() -> None:
    """Microseconds a step beside a network that costs nothing, grids included, in turns; least of several rounds."""
    diffusers = importlib.import_module("diffusers")
    ours: dict[str, Callable[..., Tensor]] = {"DDIM": ddim, "DPM-Solver++ 2M": solvers.dpmpp_2m, "DDPM": ancestral}
    theirs = {
        "DDIM": diffusers.DDIMScheduler(**SAME, clip_sample=False, timestep_spacing="trailing"),
        "DPM-Solver++ 2M": diffusers.DPMSolverMultistepScheduler(**SAME, timestep_spacing="trailing"),
        "DDPM": diffusers.DDPMScheduler(**SAME, clip_sample=False, timestep_spacing="trailing"),
    }
    print(f"A step without its network, {STEPS} steps: µs")
    print(f"{'':18} {'shape':>16} {'diffusers':>10} {'ours':>7} {'ratio':>6}")
    for shape in SHAPES:
        x, told = torch.randn(2, *shape).unbind()
        for name, sampler in ours.items():
            denoiser, scheduler = Denoiser(lambda x, t, told=told: told, SCHEDULE), theirs[name]

            def mine(sampler: Any = sampler, denoiser: Any = denoiser, x: Tensor = x) -> None:
                sampler(denoiser, x, num_inference_steps=STEPS, spacing="trailing")

            def other(scheduler: Any = scheduler, x: Tensor = x, told: Tensor = told) -> None:
                scheduler.set_timesteps(STEPS)
                for t in scheduler.timesteps:
                    x = scheduler.step(told, t, x).prev_sample

            with torch.no_grad():
                own, peer = in_turns([mine, other], 8)
            cells = f"{1e6 * peer / STEPS:>10.1f} {1e6 * own / STEPS:>7.1f} {peer / own:>6.2f}"
            print(f"{name:18} {'x'.join(map(str, shape)):>16} {cells}")


def quality() -> None:
    """Sliced Wasserstein distance to mixtures whose score is known exactly, by evaluations of it."""
    angle = 2 * torch.pi * torch.arange(8, dtype=torch.float64) / 8
    random = 1.5 * torch.randn(4, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    worlds = {"ring of 8": (2 * torch.stack([angle.cos(), angle.sin()], -1), 0.25), "4 at random": (random, 0.3)}
    samplers: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], int]] = {
        "DDIM": (ddim, (10, 20, 50, 100), 1),
        "DPM-Solver++ 2M": (solvers.dpmpp_2m, (10, 15, 20), 1),
        "order 3": (solvers.dpmpp_3m, (10, 15, 20), 1),
        "PNDM": (solvers.pndm, (10, 15, 20), 1),
        "Heun": (solvers.heun, (5, 8, 10), 2),
    }
    for title, (loc, scale) in worlds.items():
        size = 4096 // len(loc)
        truth, again = (torch.cat([m + scale * normals(size, s + k) for k, m in enumerate(loc)]) for s in (50, 80))
        world = NoisedMixture.isotropic(loc, scale)
        denoiser, x = Denoiser(world.network(SCHEDULE), SCHEDULE), normals(4096, 7)
        print(
            f"\nSliced Wasserstein distance by evaluations, {title} (two samples of it: {distance(again, truth):.4f})"
        )
        for name, (sampler, steps, each) in samplers.items():
            found = [(each * n - each + 1, sampler(denoiser, x, num_inference_steps=n)) for n in steps]
            print(f"{name:18}", "  ".join(f"{n}: {distance(drawn, truth):.4f}" for n, drawn in found))


def training() -> None:
    """Milliseconds of forward, backward and Adam on images, sizes within five per cent, in turns."""
    for name in ("torchvision", "torchvision.transforms"):
        sys.modules.setdefault(name, MagicMock())  # the peer's trainer reads images by it; its model does not
    peer = importlib.import_module("denoising_diffusion_pytorch")
    own = UNet(1, 16, (1, 2), 2)
    theirs = peer.Unet(dim=16, dim_mults=(1, 2), channels=1, flash_attn=False)
    wrapped = peer.GaussianDiffusion(
        theirs, image_size=SIDE, timesteps=1000, objective="pred_noise", auto_normalize=False
    )
    x, denoiser = torch.randn(ROWS, 1, SIDE, SIDE), Denoiser(own, SCHEDULE)
    runs = [stepper(own, lambda: noise_loss(denoiser, x).mean()), stepper(theirs, lambda: wrapped(x))]
    ours, other = in_turns(runs, 12)
    print(f"\nTraining step, {ROWS} images of {SIDE} x {SIDE}, U-Net, float32: ms")
    for name, network, seconds in (("denoising-diffusion-pytorch", theirs, other), ("ours", own, ours)):
        print(f"{name:30} {sum(p.numel() for p in network.parameters()):>8} parameters {1e3 * seconds:>7.2f}")
    print(f"peer / ours {other / ours:.2f}")


def stepper(network: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One step of learning, the same for both."""
    optimiser = torch.optim.Adam(network.parameters(), 1e-3, fused=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss().backward()
        optimiser.step()

    return step


def in_turns(runs: list[Callable[[], Any]], rounds: int) -> list[float]:
    """The least seconds of each, after one round that warms up."""
    times = [[timed(run)[0] for run in runs] for _ in range(rounds + 1)][1:]
    return [min(column) for column in zip(*times, strict=True)]


def normals(count: int, seed: int) -> Tensor:
    """Quasi-random normals in the plane, which make a distance sharp."""
    engine = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed)
    return torch.special.ndtri(engine.draw(count, dtype=torch.float64).clamp(1e-9, 1 - 1e-9))


def distance(drawn: Tensor, truth: Tensor) -> float:
    """Sliced Wasserstein distance, the same directions every time."""
    return float(sliced_wasserstein(drawn, truth, generator=torch.Generator().manual_seed(0)))
