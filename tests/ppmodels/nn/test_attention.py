import math
import time

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ppmodels.nn.attention import MultiHeadAttention, attention, attention_weights
from ppmodels.nn.position import sinusoidal


def qkv(*shape, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(3, *shape, dtype=dtype)


def by_hand(q, k, v, mask=None):
    """The formula, one query at a time."""
    out = torch.zeros_like(q)
    for i in range(q.shape[-2]):
        scores = (q[..., i, None, :] * k).sum(-1) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[i], float("-inf"))
        out[..., i, :] = (scores.softmax(-1)[..., None] * v).sum(-2)
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 5, 32])
def test_attention_is_the_formula_and_torchs(causal, length):
    q, k, v = qkv(2, 3, length, 8)
    mask = torch.ones(length, length).tril().bool() if causal else None
    ours = attention(q, k, v, causal=causal)
    torch.testing.assert_close(ours, by_hand(q, k, v, mask), atol=1e-6, rtol=0)
    theirs = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    weights = attention_weights(q, k, causal=causal)
    torch.testing.assert_close(weights @ v, ours, atol=1e-6, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, length), atol=1e-6, rtol=0)
    assert (weights >= 0).all()


def test_one_retrieval_of_a_modern_hopfield_network():
    """xi <- X softmax(beta X^T xi) with beta = 1 / sqrt(D), the patterns being keys and values."""
    torch.manual_seed(0)
    patterns, state = torch.randn(30, 16), torch.randn(1, 16)
    retrieved = (state @ patterns.mT / 16**0.5).softmax(-1) @ patterns
    torch.testing.assert_close(attention(state[None, None], *(patterns[None, None],) * 2)[0, 0], retrieved)


@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_is_torchs(causal):
    torch.manual_seed(0)
    ours = MultiHeadAttention(12, 3)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x, context = torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    hidden = torch.ones(7, 7).triu(1).bool() if causal else None  # torch's module marks what is hidden
    for other in (x, context):
        expected, weights = theirs(x, other, other, attn_mask=hidden, average_attn_weights=False)
        torch.testing.assert_close(ours(x, other, causal=causal), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.weights(x, other, causal=causal), weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_row_that_sees_nothing_gives_zeros_and_finite_gradients(causal, biased):
    q, k, v = (x.requires_grad_() for x in qkv(2, 3, 4, 8).unbind())
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    mask[0, :, 2] = False
    mask[1] = False
    bias = torch.randn(3, 4, 4) if biased else None
    out = attention(q, k, v, mask, causal, bias)
    weights = attention_weights(q, k, mask, causal, bias)
    torch.testing.assert_close(weights @ v, out, atol=1e-6, rtol=0)
    assert (out[0, :, 2] == 0).all()
    assert (out[1] == 0).all()
    assert (weights[1] == 0).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.sum(), (q, k, v)))


def test_fewer_queries_than_keys_stand_at_the_end():
    """torch's own flag would let a single cached query see the first key only."""
    q, k, v = qkv(1, 2, 9, 8)
    whole = attention(q, k, v, causal=True)
    for count in (1, 4):
        torch.testing.assert_close(attention(q[..., -count:, :], k, v, causal=True), whole[..., -count:, :])
    early = attention(q, k[..., -3:, :], v[..., -3:, :], causal=True)  # the first six come before every key
    assert (early[..., :6, :] == 0).all()


@pytest.mark.parametrize("position", ["none", "rotary", "alibi"])
def test_later_tokens_change_nothing_before(position):
    torch.manual_seed(0)
    part, x = MultiHeadAttention(16, 4, position=position), torch.randn(2, 10, 16)
    changed = x.clone()
    changed[:, 6:] += torch.randn(2, 4, 16)
    before, after = part(x, causal=True), part(changed, causal=True)
    assert torch.equal(before[:, :6], after[:, :6])
    assert (before[:, 6:] - after[:, 6:]).abs().min(-1).values.max() > 0


@pytest.mark.parametrize("position", ["none", "rotary", "alibi"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_step_by_step_with_a_cache_is_the_whole(position, kv_heads):
    torch.manual_seed(0)
    part, x = (
        MultiHeadAttention(16, 4, kv_heads, position).double(),
        torch.randn(2, 9, 16, dtype=torch.float64),
    )
    past, outputs = None, []
    for stretch in x.split([3, 1, 1, 4], 1):
        y, past = part.decode(stretch, past)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), part(x, causal=True), atol=1e-12, rtol=0)


def test_blind_to_order_without_positions_only():
    torch.manual_seed(0)
    part, x, order = MultiHeadAttention(16, 4), torch.randn(1, 8, 16), torch.randperm(8)
    torch.testing.assert_close(part(x[:, order]), part(x)[:, order], atol=1e-6, rtol=0)
    places = sinusoidal(torch.arange(8), 16).float()
    assert (part(x[:, order] + places) - part(x + places)[:, order]).abs().max() > 1e-2
    for position in ("rotary", "alibi"):
        part = MultiHeadAttention(16, 4, position=position)
        assert (part(x[:, order]) - part(x)[:, order]).abs().max() > 1e-3


def test_padding_is_a_shorter_sequence():
    torch.manual_seed(0)
    part, x = MultiHeadAttention(16, 4), torch.randn(1, 8, 16)
    mask = (torch.arange(8) < 5)[None, None]
    torch.testing.assert_close(part(x, mask=mask)[:, :5], part(x[:, :5]), atol=1e-6, rtol=0)


def test_why_scores_are_scaled():
    """Var(q k) = D, after / sqrt(D) it is 1, and the entropy of the weights no longer falls with D."""
    torch.manual_seed(0)
    draws, widths = 20000, (16, 64, 256)
    scaled, plain = [], []
    for width in widths:
        products = (torch.randn(draws, width) * torch.randn(draws, width)).sum(-1)
        for values, expected in ((products, width), (products / width**0.5, 1)):
            error = 4 * values.square().std() / draws**0.5
            assert abs(values.square().mean() - expected) < error
        q, k = torch.randn(400, 1, 8, width), torch.randn(400, 1, 64, width)
        scaled.append(attention_weights(q, k))
        plain.append(attention_weights(q * width**0.5, k))

    def entropy(p):
        return -(p * p.clamp(min=1e-30).log()).sum(-1).mean().item()

    levels = [entropy(p) for p in scaled]
    assert max(levels) - min(levels) < 0.05
    assert min(levels) > math.log(64) - 0.6  # Gaussian scores of variance 1 cost half a nat
    low = [entropy(p) for p in plain]
    assert low[0] > 1.5 * low[1] > 2 * low[2]
    assert low[2] < 0.5


def test_operations_grow_with_the_square_of_the_length():
    def count(length):
        q, k, v = qkv(1, 2, length, 16)
        with FlopCounterMode(display=False) as counted:
            attention_weights(q, k) @ v
        return counted.get_total_flops()

    assert count(512) / count(256) == 4


@pytest.mark.slow
def test_time_grows_with_the_square_of_the_length():
    def seconds(length):
        q, k, v = qkv(1, 1, length, 64)
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            attention(q, k, v)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(8192) / seconds(4096) == pytest.approx(4, rel=0.25)


def test_dropout_only_in_training():
    torch.manual_seed(0)
    part, x = MultiHeadAttention(16, 4, dropout=0.5), torch.randn(2, 9, 16)
    assert not torch.equal(part(x), part(x))
    part.eval()
    assert torch.equal(part(x), part(x))


def test_one_clear_line_for_what_cannot_be():
    with pytest.raises(ValueError, match="divide"):
        MultiHeadAttention(10, 4)
