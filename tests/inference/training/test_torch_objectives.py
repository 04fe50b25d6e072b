"""The loop over plain torch modules: groups, averages, held-out rows, half precision, recording, several processes."""

import math
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from inference.training import HeldOut, Plateau, Training, constant, warmup_cosine, warmup_linear, warmup_root
from inference.training.recording import Recorded
from ppmodels.nn.parameter_groups import parameter_groups


def data(rows=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator)
    return x, torch.sin(x.sum(-1, keepdim=True)) + 0.1 * torch.randn(rows, 1, generator=generator)


class Network(nn.Module):
    """A small network with a buffer that every loss changes."""

    def __init__(self, noise=0.0):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))
        self.noise = noise
        self.register_buffer("seen", torch.zeros(()))

    def loss(self, x, y):
        with torch.no_grad():
            self.seen += 1
        return (self.layers(x + self.noise * torch.randn_like(x)) - y).square().mean()


def trained(noise=0.0, rows=48, **options):
    x, y = data()
    network = Network(noise)
    settings = {"num_steps": 60, "lr": 0.01, "rows": rows, "batch_size": 10, "window": 10} | options
    training = Training(**settings)
    torch.manual_seed(7)
    training.run(lambda i: network.loss(x if i is None else x[i], y if i is None else y[i]), network)
    return network, training


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_loop_is_torchs_own_descent():
    """Against a loop written out with the same optimiser, schedule and clipping: the same bits."""
    x, y = data()
    schedule = warmup_cosine(5, 30)
    ours, training = trained(
        batch_size=None, num_steps=30, optimiser=torch.optim.AdamW, schedule=schedule, clip=0.1, plateau=None
    )
    network = Network()
    adam = torch.optim.AdamW(network.parameters(), lr=0.01)
    objective = []
    for step in range(30):
        adam.param_groups[0]["lr"] = 0.01 * schedule(step)
        adam.zero_grad()
        loss = network.loss(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        adam.step()
        objective.append(-float(loss.detach()))
    assert same(ours, network)
    assert training.curves()["objective"].tolist() == pytest.approx(objective, abs=0)


def test_groups_reach_the_optimiser():
    network = Network()
    groups = parameter_groups(network, lr=0.01, weight_decay=0.5)
    by_list, by_name = Network(), Network()
    x, y = data()
    decayed = {name for name, p in network.named_parameters() if any(p is q for q in groups[-1]["params"])}
    assert decayed == {"layers.0.weight", "layers.3.weight"}
    for net, told in (
        (by_list, parameter_groups(by_list, lr=0.01, weight_decay=0.5)),
        (by_name, lambda name: {"weight_decay": 0.5 if name in decayed else 0.0}),
    ):
        run = Training(20, lr=0.01, optimiser=torch.optim.AdamW, groups=told)
        run.run(lambda _, net=net: net.loss(x, y), net)
        assert sorted(g["weight_decay"] for g in run.descent.own.param_groups) == [0.0, 0.5]
    assert same(by_list, by_name)
    with pytest.raises(ValueError, match=r"missing: layers\.0\.weight"):
        Training(1, groups=[{"params": [network.layers[0].bias]}]).run(lambda _: network.loss(x, y), network)


def test_the_average_is_the_recursion_and_leaves_the_weights():
    seen = []
    network, x, y = Network(), *data()
    training = Training(12, lr=0.05, ema=0.8, window=1, callbacks=[lambda *_: seen.append(weight(network))])
    training.run(lambda _: network.loss(x, y), network)
    expected = seen[0]
    for step, value in enumerate(seen):
        expected = expected + (1 - min(0.8, (1 + step) / (10 + step))) * (value - expected)
    last = weight(network)
    with training.averaged():
        torch.testing.assert_close(weight(network), expected, rtol=0, atol=1e-6)
    assert torch.equal(weight(network), last)
    with pytest.raises(ValueError, match="no average of the weights"), Training(1).averaged():
        pass
    with pytest.raises(ValueError, match="ema must be"):
        Training(1, ema=1.0).run(lambda _: network.loss(x, y), network)


def weight(network):
    return network.layers[0].weight.detach().clone()


def test_held_out_rows_stop_the_run_and_keep_the_best_weights():
    """Few rows, many weights: the held-out loss first falls, then rises."""
    x, y = data(60)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
    looks = []

    def loss(rows):
        value = (network(x[rows]) - y[rows]).square().mean()
        if rows.start == 12:
            looks.append((float(value), network[0].weight.clone(), network.training))
        return value

    held_out = HeldOut(lambda: loss(slice(12, 60)), patience=5)
    training = Training(5000, lr=0.02, window=10, held_out=held_out)
    training.run(lambda _: loss(slice(0, 12)), network)
    values = [value for value, _, _ in looks]
    assert len(values) < 500
    assert values.index(min(values)) == len(values) - 6
    assert torch.equal(network[0].weight, looks[-6][1])
    assert training.curves()["held_out"].tolist() == pytest.approx([-v for v in values])
    assert not any(training for _, _, training in looks)  # dropout and its like were off
    assert network.training
    with pytest.raises(FloatingPointError, match="the held-out loss is nan"):
        HeldOut(lambda: math.nan).measure()


def test_a_look_at_held_out_rows_moves_no_random_state():
    plain, _ = trained(noise=0.3)
    looked, _ = trained(noise=0.3, held_out=HeldOut(lambda: torch.randn(()), patience=99))
    assert torch.equal(plain.layers[0].weight, trained(noise=0.3)[0].layers[0].weight)
    held_out = HeldOut(lambda: torch.randn(()))
    assert held_out.measure() == held_out.measure()
    assert looked.seen == plain.seen


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_keeps_whole_weights(precision):
    whole, _ = trained(num_steps=200)
    half, training = trained(num_steps=200, precision=precision)
    assert half.layers[0].weight.dtype == torch.float32
    assert not torch.equal(half.layers[0].weight, whole.layers[0].weight)
    assert training.objective[-1] == pytest.approx(trained(num_steps=200)[1].objective[-1], rel=0.2)
    if precision == "fp16":
        assert training.descent.scaler.get_scale() > 1
    with pytest.raises(ValueError, match="no precision 'fp8'"):
        Training(1, precision="fp8")


def test_every_part_of_a_run_is_resumed(tmp_path):
    """Weights, buffers, averages, the best weights, the optimiser, the plateau and all curves: the same bits."""

    def run(path=None, die=None):
        x, y = data()
        network, calls = Network(noise=0.1), []

        def loss(i):
            calls.append(i)
            if len(calls) == die:
                raise KeyboardInterrupt
            return network.loss(x[i], y[i])

        torch.manual_seed(7)
        training = Training(
            80, lr=0.01, rows=48, batch_size=10, window=10, plateau=Plateau(1e-3, 2), ema=0.9, checkpoint=path,
            optimiser=torch.optim.AdamW, held_out=HeldOut(lambda: network.loss(x, y), patience=50), clip=0.5,
            precision="fp16",
        )  # fmt: skip
        return network, training.run(loss, network)

    network, training = run()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", die=47)
    again, resumed = run(tmp_path / "run")
    assert same(network, again)
    assert training.objective == resumed.objective
    assert training.held_out.objective == resumed.held_out.objective
    for name, value in training.average.values.items():
        assert torch.equal(value, resumed.average.values[name])
    assert training.plateau.state() == resumed.plateau.state()
    finished, twice = run(tmp_path / "run")
    assert same(network, finished)
    assert twice.objective == training.objective
    with pytest.raises(ValueError, match=r"another run: lr was 0\.01, is 0\.02"):
        Training(80, lr=0.02, rows=48, batch_size=10, checkpoint=tmp_path / "run").run(None, network)


@pytest.mark.parametrize(("choice", "executor"), [("auto", "recorded"), (True, "compiled")])
def test_recorded_operations_are_the_loss(choice, executor):
    """Fresh noise in every step, changed weights and buffers: the same descent, to rounding."""
    eager, slow = trained(noise=0.2, ema=0.9)
    recorded, fast = trained(noise=0.2, ema=0.9, compile=choice)
    assert fast.executor == executor
    torch.testing.assert_close(torch.tensor(fast.objective), torch.tensor(slow.objective), rtol=1e-4, atol=1e-5)
    assert recorded.seen == eager.seen == 60
    torch.testing.assert_close(recorded.layers[0].weight, eager.layers[0].weight, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_recorded_is_computed():
    network, (x, y) = Network(), data()

    def branches(rows):
        loss = network.loss(x[rows], y[rows])
        return loss if loss > 0.1 else 2 * loss

    training = Training(20, rows=48, batch_size=12, compile="auto").run(branches, network)
    assert len(training.objective) == 20
    assert training.executor.startswith("eager: ")
    counter = iter(range(1000))
    changing = Recorded(lambda rows: network.loss(x, y) * next(counter), lambda: dict(network.named_parameters()))
    assert changing(None)[0] != changing(None)[0]
    assert "another value" in changing.reason
    weight = [1.0]

    def later(rows):
        return weight[0] * network.loss(x, y)

    with pytest.raises(ValueError, match="the loss changes by itself"):
        Training(
            20, window=10, compile="auto", callbacks=[lambda *_: weight.__setitem__(0, 2.0)]
        ).run(later, network)  # fmt: skip


def test_schedules():
    share = warmup_cosine(10, 110, last=0.1)
    assert [share(0), share(9), share(10)] == [0.1, 1.0, 1.0]
    assert share(60) == pytest.approx(0.55)
    assert share(110) == share(500) == pytest.approx(0.1)
    share = warmup_linear(4, 12)
    assert [share(1), share(4), share(8), share(12)] == [0.5, 1.0, 0.5, 0.0]
    share = warmup_root(100)
    assert [share(49), share(99), share(399)] == [0.5, 1.0, 0.5]
    assert constant(7) == 1.0
    with pytest.raises(ValueError, match="shorter than the run"):
        warmup_cosine(10, 10)


def test_options_that_cannot_be():
    with pytest.raises(ValueError, match="at least 1"):
        Training(0)
    with pytest.raises(ValueError, match="say how many there are"):
        Training(1, batch_size=3)


TWO = """
import sys, time, torch
from torch import distributed as dist
sys.path[:0] = [{folder!r}, {root!r}]
from test_torch_objectives import trained
rank, count = int(sys.argv[1]), int(sys.argv[2])
if count > 1:
    dist.init_process_group("gloo", init_method={address!r}, rank=rank, world_size=count)
slow = [lambda *_: time.sleep({pause})]
network, training = trained(batch_size=11, ema=0.9, clip=0.5, noise={noise}, checkpoint={path!r}, callbacks=slow)
torch.save((network.state_dict(), training.objective, training.average.values), {out!r} + str(rank))
"""


def start(tmp_path, count, name, noise=0.0, path=None, pause=0.0):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    here = Path(__file__).parent
    out = str(tmp_path / name)
    code = TWO.format(
        folder=str(here), root=str(here.parents[2]), address=address, out=out, noise=noise, path=path, pause=pause
    )
    words = [[sys.executable, "-c", code, str(rank), str(count)] for rank in range(count)]
    return [subprocess.Popen(w) for w in words], [Path(f"{out}{rank}") for rank in range(count)]


def finished(processes, outs):
    assert [p.wait() for p in processes] == [0] * len(outs)
    return [torch.load(out) for out in outs]


def test_two_processes_are_one_with_the_joint_batch(tmp_path):
    """Batches of 9 and 10 rows, shared unevenly."""
    (one,) = finished(*start(tmp_path, 1, "one"))
    first, second = finished(*start(tmp_path, 2, "two"))
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name])  # the same bits in both
        torch.testing.assert_close(value, one[0][name], rtol=1e-4, atol=1e-5)
    assert first[1] == second[1] == pytest.approx(one[1], rel=1e-4)
    for name, value in first[2].items():
        torch.testing.assert_close(value, one[2][name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_killed_processes_end_with_the_same_bits(tmp_path):
    """Noise of its own in each process."""
    whole = finished(*start(tmp_path, 2, "whole", noise=0.2))
    path = tmp_path / "run"
    processes, _ = start(tmp_path, 2, "killed", noise=0.2, path=str(path), pause=0.3)
    while not path.exists():
        time.sleep(0.01)
    time.sleep(0.7)
    for process in processes:
        process.kill()
        assert process.wait() == -9
    again = finished(*start(tmp_path, 2, "killed", noise=0.2, path=str(path)))
    for one, other in zip(whole, again, strict=True):
        assert one[1] == other[1]
        for name, value in one[0].items():
            assert torch.equal(value, other[0][name])
