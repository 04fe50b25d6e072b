"""The training loop, its stopping rule and its checkpoints."""

import math
import subprocess
import sys
import time

import pytest
import torch

from inference.training.checkpoint import Checkpoint
from inference.training.loop import Training, first_not_finite
from inference.training.minibatches import minibatch
from inference.training.plateau import RATES, Plateau

pytestmark = pytest.mark.usefixtures("double_precision")


class Regression:
    """Least squares with noise of its own in every loss, so that the random state matters."""

    def __init__(self, rows=30):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(rows, 2, generator=generator)
        self.y = self.x @ torch.tensor([2.0, -1.0]) + 0.1 * torch.randn(rows, generator=generator)
        self.w = torch.zeros(2, requires_grad=True)
        self.b = torch.zeros((), requires_grad=True)

    def parameters(self):
        return {"w": self.w, "b": self.b}

    def loss(self, index):
        x, y = (self.x, self.y) if index is None else (self.x[index], self.y[index])
        jitter = 0.01 * torch.randn(2)
        return (y - x @ (self.w + jitter) - self.b).square().mean()


def training(path=None, **options):
    checkpoint = None if path is None else Checkpoint(path, {"seed": 3})
    settings = {"num_steps": 300, "lr": 0.05, "rows": 30, "batch_size": 7, "seed": 3, "window": 20} | options
    return Training(settings.pop("num_steps"), settings.pop("lr"), Plateau(1e-6, 3), checkpoint=checkpoint, **settings)


def test_an_epoch_takes_every_row_once_in_equal_batches():
    for epoch in (0, 3):
        batches = [minibatch(23, 5, 5 * epoch + place, seed=2) for place in range(5)]
        assert sorted(torch.cat(batches).tolist()) == list(range(23))
        assert {len(batch) for batch in batches} == {4, 5}
    assert minibatch(23, 5, 0, seed=2).tolist() != minibatch(23, 5, 5, seed=2).tolist()
    assert minibatch(23, 5, 7, seed=2).tolist() == minibatch(23, 5, 7, seed=2).tolist()
    assert minibatch(23, None, 7, seed=2) is None


def test_the_loop_finds_least_squares():
    problem = Regression()
    run = training(num_steps=5000).run(problem.loss, problem.parameters)
    x = torch.cat([problem.x, torch.ones(30, 1)], 1)
    exact = torch.linalg.lstsq(x, problem.y[:, None]).solution[:, 0]
    torch.testing.assert_close(problem.w.detach(), exact[:2], rtol=0, atol=0.01)
    assert run.plateau.converged
    assert len(run.objective) < 5000


def test_too_few_steps_are_not_convergence():
    problem = Regression()
    run = training(num_steps=40).run(problem.loss, problem.parameters)
    assert not run.plateau.converged
    assert "raise num_steps" in run.plateau.message()


def test_gradient_is_clipped():
    problem = Regression()
    with torch.no_grad():
        problem.w.fill_(1e6)
    norms = []
    run = training(num_steps=1, clip=0.5)
    run.run(problem.loss, problem.parameters)
    norms = torch.cat([problem.w.grad, problem.b.grad[None]]).norm()
    assert float(norms) == pytest.approx(0.5)


def test_a_callback_stops_the_run():
    problem, seen = Regression(), []

    def held_out(step, elbo):
        seen.append((step, elbo))
        return step >= 60

    run = training(callbacks=[held_out]).run(problem.loss, problem.parameters)
    assert [step for step, _ in seen] == [20, 40, 60]
    assert run.stopped
    assert seen[-1][1] == pytest.approx(sum(run.objective[40:60]) / 20)


def test_a_schedule_sets_the_rate():
    problem = Regression()
    training(num_steps=5, schedule=lambda step: 0.0).run(problem.loss, problem.parameters)
    assert problem.w.detach().tolist() == [0.0, 0.0]


def test_parameters_may_come_later():
    problem, late = Regression(), torch.ones((), requires_grad=True)
    calls = []

    def loss(index):
        calls.append(index)
        return problem.loss(index) + (late.square() if len(calls) > 5 else 0.0)

    def parameters():
        return {**problem.parameters(), **({"late": late} if len(calls) > 5 else {})}

    training(num_steps=200).run(loss, parameters)
    assert abs(float(late.detach())) < 0.1


def test_a_nan_names_step_and_parameter():
    problem = Regression()
    calls = []

    def loss(index):
        calls.append(index)
        return problem.loss(index) * (math.nan if len(calls) == 18 else 1.0)

    with pytest.raises(FloatingPointError, match=r"step 18: the loss is nan.*is the gradient of w"):
        training().run(loss, problem.parameters)
    with torch.no_grad():
        problem.b.fill_(math.inf)
    with pytest.raises(FloatingPointError, match=r"step 1: the loss is inf.*not finite is b"):
        training().run(problem.loss, problem.parameters)
    assert first_not_finite({"a": None, "b": torch.ones(2)}) is None


def result(path=None, stop_at=None):
    """Parameters after a run that may break off at a step."""
    problem, calls = Regression(), []

    def loss(index):
        calls.append(index)
        if stop_at is not None and len(calls) == stop_at:
            raise KeyboardInterrupt
        return problem.loss(index)

    torch.manual_seed(5)
    run = training(path).run(loss, problem.parameters)
    return problem, run


def test_a_broken_off_run_ends_with_the_same_bits(tmp_path):
    whole, first = result()
    with pytest.raises(KeyboardInterrupt):
        result(tmp_path / "run", stop_at=151)
    assert (tmp_path / "run").exists()
    torch.manual_seed(99)
    resumed, second = result(tmp_path / "run")
    assert torch.equal(resumed.w, whole.w)
    assert torch.equal(resumed.b, whole.b)
    assert first.objective == second.objective
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_another_run_is_refused(tmp_path):
    result(tmp_path / "run")
    other = Checkpoint(tmp_path / "run", {"seed": 4})
    with pytest.raises(ValueError, match="another run: seed was 3, is 4"):
        other.load()
    (tmp_path / "text").write_text("not a checkpoint")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        Checkpoint(tmp_path / "text", {}).load()


SCRIPT = """
import sys, time, torch
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_loop import Regression, training
torch.set_default_dtype(torch.float64)
torch.manual_seed(5)
problem = Regression()
slow = lambda index: (time.sleep(0.002), problem.loss(index))[1]
training(Path({path!r}), num_steps=600, window=10).run(slow, problem.parameters)
torch.save([problem.w.detach(), problem.b.detach()], {out!r})
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    from pathlib import Path

    def start(name):
        path, out = str(tmp_path / name), str(tmp_path / f"{name}.pt")
        code = SCRIPT.format(folder=str(Path(__file__).parent), path=path, out=out)
        return subprocess.Popen([sys.executable, "-c", code]), Path(path), Path(out)

    process, _, whole = start("whole")
    assert process.wait() == 0
    process, path, _ = start("killed")
    while not path.exists():
        time.sleep(0.01)
    time.sleep(0.3)
    process.kill()
    assert process.wait() == -9
    process, _, resumed = start("killed")
    assert process.wait() == 0
    for a, b in zip(torch.load(whole), torch.load(resumed), strict=True):
        assert torch.equal(a, b)


def test_plateau_lets_slow_gains_add_up():
    """A rise that no single window shows above its noise is still seen."""
    torch.manual_seed(0)
    plateau = Plateau(1e-9, patience=4)
    for k in range(40):
        plateau.update((0.2 * k + torch.randn(100)).tolist())
    assert plateau.stage == 0


def test_plateau_ends_on_noise_and_on_standstill():
    torch.manual_seed(0)
    noisy, still = Plateau(1e-6, patience=2), Plateau(1e-6, patience=2)
    while not noisy.converged and len(noisy.windows) < 100:
        noisy.update(torch.randn(100).tolist())
    assert noisy.converged
    for _ in range(2 * len(RATES) + 1):
        still.update([7.0] * 10)
    assert still.converged
    assert still.message() == "converged"
    again = Plateau(1e-6, patience=2)
    again.restore(noisy.state())
    assert again == noisy
