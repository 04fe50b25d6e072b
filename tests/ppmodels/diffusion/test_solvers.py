import math

import pytest
import torch

from ppmodels.diffusion import solvers
from ppmodels.diffusion._multistep import adams_bashforth, exponential
from ppmodels.diffusion.ddim import ddim
from ppmodels.diffusion.distance import sliced_wasserstein
from ppmodels.diffusion.mixture import NoisedMixture
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.schedule import Schedule, linear

SCHEDULE = linear()


def end_error(solver, steps, gaussian):
    """Error of the end point against the exact map of the flow, N(0.7, 0.5^2), stopped at sigma 0.1.

    The step to sigma 0 would hide the order: it is of first order for everybody.
    """
    sigma = torch.linspace(math.log(0.1), math.log(80.0), steps, dtype=torch.float64).exp()
    schedule = Schedule(torch.ones(steps + 1).double(), torch.cat([torch.zeros(1).double(), sigma]))
    world = gaussian(0.25, mean=0.7)
    start = torch.tensor([[55.0], [-30.0], [3.0]], dtype=torch.float64)
    reached = {}
    solver(
        Denoiser(world.network(schedule), schedule),
        start,
        num_inference_steps=steps,
        spacing="linspace",
        callback=lambda i, t, x: reached.__setitem__(t, x),
    )
    exact = 0.7 + (start - 0.7) * math.sqrt((0.25 + 0.01) / (0.25 + 6400))
    return float((reached[1] - exact).abs().max())


@pytest.mark.parametrize(
    ("name", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("heun", 2), ("heun_sigma", 2), ("dpmpp_3m", 3)]
)
def test_order_of_convergence(gaussian, name, order):
    def run(denoiser, x, **options):
        if name == "ddim":
            return ddim(denoiser, x, **options)
        if name == "heun_sigma":
            return solvers.heun(denoiser, x, variable="sigma", **options)
        return getattr(solvers, name)(denoiser, x, **options)

    coarse, fine = (end_error(run, steps, gaussian) for steps in (120, 240))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_order_of_pndm(gaussian, order):
    def run(denoiser, x, **options):
        return solvers.pndm(denoiser, x, order=order, **options)

    coarse, fine = (end_error(run, steps, gaussian) for steps in (200, 400))
    # The first steps have lower order, which shows where it starts to matter.
    assert math.log2(coarse / fine) > min(order, 2) - 0.2


def test_pndm_beats_ddim_by_far_at_equal_evaluations(ring, seeded):
    denoiser = Denoiser(ring.network(SCHEDULE), SCHEDULE)
    x = torch.randn(500, 2, generator=seeded(), dtype=torch.float64)
    exact = solvers.dpmpp_3m(denoiser, x, num_inference_steps=300)
    by_ddim, by_pndm = (
        float((sampler(denoiser, x, num_inference_steps=25) - exact).square().mean().sqrt())
        for sampler in (ddim, solvers.pndm)
    )
    assert by_pndm < by_ddim / 2


def test_adams_bashforth_weights():
    even = [0.0, -1.0, -2.0, -3.0]
    told = adams_bashforth(even, 1.0)
    assert told == pytest.approx([55 / 24, -59 / 24, 37 / 24, -9 / 24])
    assert adams_bashforth([5.0], 3.0) == [1.0]
    uneven = adams_bashforth([4.0, 7.0, 13.0], 2.0)
    for power in range(3):  # exact for polynomials of degree below the number of knots
        mean = (2.0 ** (power + 1) - 4.0 ** (power + 1)) / (power + 1) / (2.0 - 4.0)
        assert sum(w * k**power for w, k in zip(uneven, [4.0, 7.0, 13.0], strict=True)) == pytest.approx(mean)


def test_exponential_weights():
    knots, end = [0.3, -0.2, -1.0], 0.9
    u = torch.linspace(0.3, 0.9, 200_001, dtype=torch.float64)
    for power in range(3):
        truth = float(torch.trapezoid((u - end).exp() * u**power, u))
        told = sum(w * k**power for w, k in zip(exponential(knots, end), knots, strict=True))
        assert told == pytest.approx(truth, rel=1e-8)


def normals(count, seed):
    """Quasi-random normals make the distance sharp: two such samples of the mixture are 0.005 apart."""
    engine = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed)
    return torch.special.ndtri(engine.draw(count, dtype=torch.float64).clamp(1e-9, 1 - 1e-9))


def distances(world, scale):
    """How far 4096 draws of a sampler from the flow's own noise are from the mixture, and two samples of it apart."""

    def mixture(seed):
        size = 4096 // len(world.loc)
        return torch.cat([loc + scale * normals(size, seed + k) for k, loc in enumerate(world.loc)])

    truth = mixture(50)

    def of(drawn):
        return float(sliced_wasserstein(drawn, truth, generator=torch.Generator().manual_seed(0)))

    denoiser, x = Denoiser(world.network(SCHEDULE), SCHEDULE), normals(4096, 7)
    return lambda sampler, steps: of(sampler(denoiser, x, num_inference_steps=steps)), of(mixture(80))


@pytest.fixture(scope="module")
def blobs():
    """Four clusters of sd 0.3 at random places: the spacing of levels was not chosen on it."""
    loc = 1.5 * torch.randn(4, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return distances(NoisedMixture.isotropic(loc, 0.3), 0.3)


def test_fewer_evaluations_for_the_same_quality(ring):
    """DPM-Solver++ and PNDM at 20 evaluations, and Heun at 19, are nearer to the mixture than DDIM at 100."""
    distance, apart = distances(ring, 0.25)
    hundred = distance(ddim, 100)
    assert 0.003 < apart < 0.006
    assert distance(solvers.dpmpp_2m, 20) < hundred < 0.015
    assert distance(solvers.pndm, 20) < hundred
    assert distance(solvers.dpmpp_3m, 20) < 1.1 * hundred
    assert distance(solvers.heun, 10) < hundred


def test_and_on_a_mixture_that_the_spacing_was_not_chosen_on(blobs):
    distance, apart = blobs
    hundred = distance(ddim, 100)
    assert 0.003 < apart < 0.006
    assert distance(solvers.dpmpp_2m, 20) < hundred
    assert distance(solvers.heun, 10) < hundred


def test_evaluations_are_what_is_told(ring, seeded):
    calls = [0]
    perfect = ring.network(SCHEDULE)

    def counted(x, t):
        calls[0] += 1
        return perfect(x, t)

    x = torch.randn(2, 2, generator=seeded(), dtype=torch.float64)
    for solver, steps, evaluations in (
        (solvers.dpmpp_2m, 20, 20),
        (solvers.dpmpp_3m, 20, 20),
        (solvers.pndm, 20, 20),
        (solvers.heun, 10, 19),
        (ddim, 20, 20),
    ):
        calls[0] = 0
        solver(Denoiser(counted, SCHEDULE), x, num_inference_steps=steps)
        assert calls[0] == evaluations


@pytest.mark.parametrize("solver", [solvers.dpmpp_2m, solvers.dpmpp_3m, solvers.heun, solvers.pndm])
@pytest.mark.parametrize("steps", [999, 1000])
def test_as_many_steps_as_there_are(gaussian, solver, steps):
    """Two equal levels would divide by zero."""
    denoiser = Denoiser(gaussian(4.0).network(SCHEDULE), SCHEDULE)
    told = solver(denoiser, torch.ones(1, 1).double(), num_inference_steps=steps, spacing="linspace")
    assert float(told) == pytest.approx(2.0, abs=0.02)
