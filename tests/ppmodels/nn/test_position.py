import math

import pytest
import torch
from scipy import stats

from ppmodels.nn.position import POSITIONS, PositionEmbedding, alibi, binary, frequencies, rotary, sinusoidal


def test_inner_products_of_sines_depend_on_distance_alone():
    p = sinusoidal(torch.arange(300), 64)
    gram = p @ p.mT
    for distance, value in {0: 32.0, 1: 30.9168, 2: 28.3039, 10: 21.0516}.items():
        band = gram.diagonal(distance)
        expected = (frequencies(64) * distance).cos().sum()
        torch.testing.assert_close(band, expected.expand_as(band), atol=1e-10, rtol=0)
        assert band[0].item() == pytest.approx(value, abs=5e-5)


def test_a_shift_is_a_fixed_rotation():
    p, k = sinusoidal(torch.arange(50), 16), 7
    phase = frequencies(16) * k
    blocks = [torch.tensor([[math.cos(f), math.sin(f)], [-math.sin(f), math.cos(f)]]).double() for f in phase]
    turn = torch.block_diag(*blocks)
    torch.testing.assert_close(turn @ turn.mT, torch.eye(16).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(p[:-k] @ turn.mT, p[k:], atol=1e-6, rtol=0)


def test_binary_counts():
    expected = [[(i >> j) & 1 for j in range(5)] for i in range(32)]
    assert binary(torch.arange(32), 5).tolist() == expected
    assert binary(torch.arange(4), 128)[:, 2:].sum() == 0


@pytest.mark.parametrize("n", [4, 100])
def test_random_directions_are_nearly_orthogonal(n):
    torch.manual_seed(0)
    draws = 40000
    u, v = torch.nn.functional.normalize(torch.randn(2, draws, n, dtype=torch.float64), dim=-1)
    products = (u * v).sum(-1)
    error = 4 / draws**0.5
    assert abs(products.mean()) < error / n**0.5
    assert abs(products.square().mean() * n - 1) < error * (n * products.square()).std()


def test_tail_of_random_directions():
    """(u v)^2 is Beta(1/2, (n - 1)/2); Chebyshev's bound is far above it."""
    n, cut = 512, 0.1
    exact = stats.beta(0.5, (n - 1) / 2).sf(cut**2)
    assert exact == pytest.approx(0.0235, abs=5e-5)
    assert 1 / (n * cut**2) == pytest.approx(0.195, abs=5e-4)
    torch.manual_seed(0)
    draws = 20000
    first = torch.nn.functional.normalize(torch.randn(draws, n), dim=-1)[:, 0]  # against any fixed direction
    share = (first.abs() > cut).double().mean().item()
    assert abs(share - exact) < 4 * (exact * (1 - exact) / draws) ** 0.5


def test_rotary_scores_depend_on_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 16, dtype=torch.float64)
    score = [(rotary(q, i) @ rotary(k, i - 5).mT).item() for i in (5, 17, 900)]
    assert score == pytest.approx([score[0]] * 3, abs=1e-9)
    x = torch.randn(3, 9, 16, dtype=torch.float64)
    torch.testing.assert_close(rotary(x).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotary(x)[:, 4:], rotary(x[:, 4:], 4))


def test_alibi_is_a_slope_a_head():
    bias = alibi(8, 3, 5)
    assert bias.shape == (8, 3, 5)
    assert bias[0, -1].tolist() == pytest.approx([-2.0, -1.5, -1.0, -0.5, 0.0])
    assert bias[7, -1, 0].item() == pytest.approx(-4 / 256)


@pytest.mark.parametrize("kind", POSITIONS)
def test_embedding_continues_where_it_stopped(kind):
    torch.manual_seed(0)
    part = PositionEmbedding(kind, 8, 20)
    x = torch.randn(2, 20, 8)
    torch.testing.assert_close(torch.cat([part(x[:, :13]), part(x[:, 13:], 13)], 1), part(x))


def test_one_clear_line_for_what_cannot_be():
    with pytest.raises(ValueError, match="no position"):
        PositionEmbedding("round", 8)
    with pytest.raises(ValueError, match="longest"):
        PositionEmbedding("learned", 8)
    with pytest.raises(ValueError, match="beyond the 4 learned"):
        PositionEmbedding("learned", 8, 4)(torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match="even"):
        sinusoidal(torch.arange(3), 7)
