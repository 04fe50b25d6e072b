"""Codes: which is chosen, where gradients go, how the book follows, and a language over it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from inference.training import Training
from ppmodels.autoencoders.vqvae import VQVAE, CodePrior
from ppmodels.nn.mlp import mlp
from ppmodels.nn.quantizer import VectorQuantizer, nearest, perplexity


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_the_nearest_code_is_found():
    z, book = torch.randn(50, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    brute = torch.tensor([min(range(7), key=lambda k: float((v - book[k]).square().sum())) for v in z])
    assert torch.equal(nearest(z, book), brute)
    quantizer = VectorQuantizer(7, 3, decay=0).double()
    found = quantizer(z.reshape(5, 10, 3))
    assert found.codes.shape == (5, 10)
    torch.testing.assert_close(found.values, quantizer.codebook[found.codes])


def test_gradients_go_where_they_must():
    quantizer = VectorQuantizer(6, 3, decay=0)
    z = torch.randn(8, 3, requires_grad=True)
    found = quantizer(z)
    weight = torch.randn(8, 3)
    through, to_book = torch.autograd.grad((found.values * weight).sum(), [z, quantizer.learned], allow_unused=True)
    assert torch.equal(through, weight)  # as if nothing had been quantised
    assert to_book is None
    found = quantizer(z)
    to_z, to_book = torch.autograd.grad(found.codebook.sum(), [z, quantizer.learned], allow_unused=True)
    assert to_z is None
    expected = torch.zeros(6, 3).index_add(0, found.codes, 2 * (quantizer.codebook[found.codes] - z).detach())
    torch.testing.assert_close(to_book, expected)
    found = quantizer(z)
    to_z, to_book = torch.autograd.grad(found.commitment.sum(), [z, quantizer.learned], allow_unused=True)
    assert to_book is None
    torch.testing.assert_close(to_z, 2 * (z - found.values).detach())


def test_the_average_goes_to_the_means_of_what_chose_a_code():
    """At fixed assignments, k-means' centroids; in evaluation nothing moves."""
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    z = centres.repeat(20, 1) + torch.randn(60, 2)
    quantizer = VectorQuantizer(3, 2, decay=0.8, restart=0.0)
    quantizer.sums.copy_(centres)
    for _ in range(100):
        quantizer(z)
    means = torch.stack([z[k::3].mean(0) for k in range(3)])
    torch.testing.assert_close(quantizer.codebook, means, rtol=0, atol=1e-5)
    quantizer.eval()
    before = quantizer.sums.clone()
    quantizer(z + 1)
    assert torch.equal(quantizer.sums, before)


def test_dead_codes_come_back_to_life():
    z = torch.randn(200, 2)
    used = {}
    for restart in (0.0, 0.5):
        torch.manual_seed(1)
        quantizer = VectorQuantizer(16, 2, decay=0.9, restart=restart)
        quantizer.sums[4:] += 100
        for _ in range(80):
            codes = quantizer(z).codes
        used[restart] = float(perplexity(codes, 16))
    assert used[0.0] < 4.1
    assert used[0.5] > 10


def test_perplexity_counts_codes():
    assert float(perplexity(torch.tensor([3, 3, 3]), 8)) == pytest.approx(1.0)
    assert float(perplexity(torch.arange(8).repeat(5), 8)) == pytest.approx(8.0)


def shapes(count=256):
    """Rows of two halves, each one of four patterns that depend on one another, and a little noise."""
    first = torch.arange(count) % 4
    second = (first + (torch.arange(count) % 8 < 2).long()) % 4
    book = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    return torch.cat([book[first], -book[second]], 1) + 0.05 * torch.randn(count, 12), first, second


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_trained_book_tells_patterns_apart(decay):
    x, first, second = shapes()
    model = VQVAE(mlp([12, 32, 2 * 4]), mlp([2 * 4, 32, 12]), 2, VectorQuantizer(16, 4, decay=decay))
    run = Training(800, 0.005, rows=len(x), batch_size=64)
    run.run(lambda i: model.loss(x[i]), model)
    codes = model.encode(x)
    pairs = {(int(f), int(s)): tuple(c) for f, s, c in zip(first, second, codes.tolist(), strict=True)}
    assert len(set(pairs.values())) == len(pairs) == 6
    told = model.decode(codes)
    assert float((told - x).square().mean()) < 0.05 * float(x.var())
    torch.testing.assert_close(told, model(x)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"the decoder makes \(5,\) a row, and x has \(12,\)"):
        VQVAE(nn.Identity(), nn.Linear(12, 5), 2, VectorQuantizer(4, 6)).loss(x)


def test_the_prior_learns_which_codes_go_together():
    _, first, second = shapes(64)
    codes = torch.stack([first, second], 1)
    prior = CodePrior(4, 2, width=16, layers=1, heads=2)
    Training(250, 0.01, rows=64).run(lambda _: -prior.log_prob(codes).mean(), prior)
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    with torch.no_grad():
        assert float(prior.log_prob(every).exp().sum()) == pytest.approx(1.0, abs=1e-4)
        entropy = torch.special.entr(torch.tensor([1 / 8] * 4 + [1 / 4] * 2)).sum()
        assert float(-prior.log_prob(codes).mean()) == pytest.approx(float(entropy), abs=0.02)
    drawn = prior.sample(2000, torch.Generator().manual_seed(1))
    assert drawn.shape == (2000, 2)
    assert int(drawn.max()) < 4
    allowed = (drawn[:, 1] - drawn[:, 0]) % 4 < 2
    assert float(allowed.double().mean()) > 0.97
    share = float(((drawn[:, 1] - drawn[:, 0]) % 4 == 0).double().mean())
    assert share == pytest.approx(0.75, abs=0.04)


def test_what_cannot_be_is_one_line():
    with pytest.raises(ValueError, match="no codebook has 0 codes"):
        VectorQuantizer(0, 2)
    with pytest.raises(ValueError, match="positions must be at least 1"):
        VQVAE(nn.Identity(), nn.Identity(), 0, VectorQuantizer(2, 2))
    with pytest.raises(ValueError, match="images laid out as rows"):
        VQVAE(nn.Identity(), nn.Identity(), 1, VectorQuantizer(2, 2)).loss(torch.zeros(2, 1, 2))


TWO = """
import sys, torch
from torch import distributed as dist
from ppmodels.nn.quantizer import VectorQuantizer
rank, count, address, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if count > 1:
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=count)
torch.manual_seed(0)
quantizer, z = VectorQuantizer(4, 2, decay=0.8, restart=0.0), torch.randn(30, 2)
for _ in range(10):
    quantizer(z.tensor_split(count)[rank])
torch.save(quantizer.codebook, out + str(rank))
"""


@pytest.mark.slow
def test_a_book_shared_by_two_processes_follows_both(tmp_path):
    def start(count, name):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        words = [sys.executable, "-c", TWO]
        out = str(tmp_path / name)
        processes = [subprocess.Popen([*words, str(r), str(count), address, out], cwd=ROOT) for r in range(count)]
        assert [p.wait() for p in processes] == [0] * count
        return [torch.load(f"{out}{rank}") for rank in range(count)]

    (one,), (first, second) = start(1, "one"), start(2, "two")
    assert torch.equal(first, second)
    torch.testing.assert_close(first, one, rtol=1e-5, atol=1e-6)


ROOT = Path(__file__).resolve().parents[3]
