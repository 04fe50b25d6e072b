import pytest
import torch
from scipy import stats

from ppmodels.diffusion.fokker_planck import heat_kernel
from ppmodels.diffusion.random_walk import LatticeWalk


def test_mass_is_kept_under_both_boundaries():
    mass = torch.rand(21, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mass = mass / mass.sum()
    for boundary in ("reflecting", "periodic"):
        path = LatticeWalk(0.4, 0.1).evolve(mass, 200, boundary)
        torch.testing.assert_close(path.sum(-1), torch.ones(201).double(), rtol=0, atol=1e-12)
        assert float(path.min()) >= 0


def test_a_step_moves_right_with_q_and_left_with_p():
    start = torch.zeros(7, dtype=torch.float64)
    start[3] = 1
    after = LatticeWalk(right=0.5, left=0.2).evolve(start, 1)[1]
    assert after[2:5].tolist() == pytest.approx([0.2, 0.3, 0.5])
    at_end = torch.zeros(7, dtype=torch.float64)
    at_end[6] = 1
    assert LatticeWalk(0.5, 0.2).evolve(at_end, 1)[1][5:].tolist() == pytest.approx([0.2, 0.8])
    assert LatticeWalk(0.5, 0.2).evolve(at_end, 1, "periodic")[1][[5, 6, 0]].tolist() == pytest.approx([0.2, 0.3, 0.5])


def test_moments_of_the_master_equation():
    """Mean q - p a step; with p = q = 0.25 the squared distance grows by 0.5, so D = 0.25."""
    sites = torch.arange(-100, 101, dtype=torch.float64)
    start = (sites == 0).double()
    steps = torch.arange(51, dtype=torch.float64)
    walk = LatticeWalk(0.25, 0.25)
    torch.testing.assert_close(walk.evolve(start, 50) @ sites**2, 0.5 * steps)
    assert walk.diffusion() == 0.25
    drifting = LatticeWalk(right=0.5, left=0.2)
    torch.testing.assert_close(drifting.evolve(start, 50) @ sites, 0.3 * steps)
    assert drifting.drift() == pytest.approx(0.3)


def test_walkers_obey_the_master_equation(seeded):
    walk = LatticeWalk(0.4, 0.2)
    last = walk.simulate(200_000, 20, seeded())[-1]
    sites = torch.arange(-30, 31)
    mass = walk.evolve((sites == 0).double(), 20)[-1]
    kept = mass * 200_000 > 20
    counts = torch.stack([(last == s).sum() for s in sites[kept]]).double()
    expected = mass[kept] / mass[kept].sum() * counts.sum()
    assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 0.01


def test_walkers_reach_the_heat_kernel(seeded):
    """Kolmogorov and Smirnov cannot tell 2000 jittered walkers from N(0, 2 D t)."""
    walk = LatticeWalk(0.25, 0.25)
    last = walk.simulate(2000, 1000, seeded(3))[-1] + torch.rand(2000, generator=seeded(4), dtype=torch.float64) - 0.5
    assert stats.kstest(last.numpy(), stats.norm(scale=(2 * walk.diffusion() * 1000) ** 0.5).cdf).pvalue > 0.01
    sites = torch.arange(-150, 151, dtype=torch.float64)
    mass = walk.evolve((sites == 0).double(), 1000)[-1]
    torch.testing.assert_close(mass, heat_kernel(sites, 1000.0, 0.25), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: LatticeWalk(0.7, 0.4), "at most 1; got 0.7 and 0.4"),
        (lambda: LatticeWalk(-0.1, 0.4), "at most 1"),
        (lambda: LatticeWalk().evolve(torch.ones(3), 1, "open"), "no boundary 'open'"),
        (lambda: LatticeWalk().evolve(torch.ones(3, 3), 1), r"vector \(S,\)"),
    ],
)
def test_bad_input_gets_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says):
        call()
