"""Our weights behind diffusers' schedulers give our samples: one network, two libraries."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ppmodels.diffusion.ddim import ddim
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.samplers import ancestral
from ppmodels.diffusion.schedule import linear
from ppmodels.diffusion.solvers import dpmpp_2m
from ppmodels.nn.denoiser import MLPDenoiser

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # its own, of NumPy 2
SAME = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}  # ours: theirs


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights that predict something."""
    path = tmp_path_factory.mktemp("weights") / "denoiser.safetensors"
    network, generator = MLPDenoiser(2, hidden=32, layers=2), torch.Generator().manual_seed(0)
    save_file({k: 0.3 * torch.randn(v.shape, generator=generator) for k, v in network.state_dict().items()}, path)
    return path


def load(path):
    network = MLPDenoiser(2, hidden=32, layers=2)
    network.load_state_dict(load_file(path))
    return network


@torch.no_grad()
def theirs(scheduler, network, x, steps, generator=None):
    """Their loop; their timestep 0 has seen one step of noise, which ours counts as 1."""
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        told = network(scheduler.scale_model_input(x, t), torch.full((len(x),), int(t) + 1))
        options = {} if generator is None else {"generator": generator}
        x = scheduler.step(told, t, x, **options).prev_sample
    return x


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [10, 50])
@torch.no_grad()
def test_ddim(weights, prediction, spacing, steps):
    scheduler = diffusers.DDIMScheduler(
        **SAME, clip_sample=False, timestep_spacing=spacing, prediction_type=PREDICTIONS[prediction]
    )
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    ours = ddim(Denoiser(load(weights), linear(), prediction), x, num_inference_steps=steps, spacing=spacing)
    torch.testing.assert_close(theirs(scheduler, load(weights), x, steps), ours, rtol=1e-3, atol=1e-3)
    assert (ours - x).abs().mean() > 0.1


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [10, 20])
@torch.no_grad()
def test_dpm_solver(weights, prediction, steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **SAME, solver_order=2, algorithm_type="dpmsolver++", solver_type="midpoint", timestep_spacing="trailing",
        final_sigmas_type="zero", prediction_type=PREDICTIONS[prediction],
    )  # fmt: skip
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    ours = dpmpp_2m(Denoiser(load(weights), linear(), prediction), x, num_inference_steps=steps, spacing="trailing")
    torch.testing.assert_close(theirs(scheduler, load(weights), x, steps), ours, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("variance", "name"), [("posterior", "fixed_small"), ("beta", "fixed_large")])
@torch.no_grad()
def test_ancestral_with_the_same_noise(weights, variance, name):
    scheduler = diffusers.DDPMScheduler(**SAME, clip_sample=False, variance_type=name, timestep_spacing="trailing")
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    denoiser = Denoiser(load(weights), linear())
    ours = ancestral(
        denoiser, x, num_inference_steps=100, variance=variance, spacing="trailing",
        generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    told = theirs(scheduler, load(weights), x, 100, torch.Generator().manual_seed(2))
    torch.testing.assert_close(told, ours, rtol=1e-3, atol=1e-3)
