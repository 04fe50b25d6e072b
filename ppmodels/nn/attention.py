"""Attention: a soft look-up of values by the likeness of queries and keys."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppmodels.nn.position import alibi, rotary


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    r""":math:`\mathrm{softmax}(Q K^T / \sqrt D + \mathrm{bias})\,V` by torch's fused kernel.

    A query to which everything is hidden gets zeros, and zero gradients. With `causal` the last query
    stands at the last key, also when there are fewer queries than keys, as with a cache.

    q: (B, heads, T, D). k, v: (B, heads or a divisor of it, S, D). mask: True takes part, (..., T, S).
    bias: added to the scores, (..., T, S). dropout: of the weights. Returns: (B, heads, T, D).
    """
    grouped = q.shape[1] != k.shape[1]
    queries, keys = q.shape[-2], k.shape[-2]
    square = causal and queries == keys and mask is None and bias is None
    if square or (mask is None and bias is None and (not causal or queries == 1)):
        return functional.scaled_dot_product_attention(q, k, v, None, dropout, square, enable_gqa=grouped)
    allowed = visible(queries, keys, mask, causal, q.device)
    if allowed is None:
        return functional.scaled_dot_product_attention(q, k, v, _cast(bias, q), dropout, enable_gqa=grouped)
    blind = ~allowed.any(-1, keepdim=True)  # (..., T, 1)
    scores = allowed | blind  # a row of -inf would be NaN in some kernels; it is zeroed below
    if bias is not None:
        scores = bias.to(q).masked_fill(~scores, float("-inf"))
    out = functional.scaled_dot_product_attention(q, k, v, scores, dropout, enable_gqa=grouped)
    return out.masked_fill(blind, 0.0)


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None = None, causal: bool = False, bias: Tensor | None = None
) -> Tensor:
    """The weights themselves, (B, heads, T, S), for pictures and tests: O(T S) memory.

    Each row sums to one, or to zero where everything is hidden.
    """
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    scores = scores if bias is None else scores + bias.to(q)
    allowed = visible(q.shape[-2], k.shape[-2], mask, causal, q.device)
    if allowed is None:
        return scores.softmax(-1)
    blind = ~allowed.any(-1, keepdim=True)
    return scores.masked_fill(~(allowed | blind), float("-inf")).softmax(-1).masked_fill(blind, 0.0)


def visible(
    queries: int, keys: int, mask: Tensor | None, causal: bool, device: torch.device | None = None
) -> Tensor | None:
    """Which key each query may see, (..., T, S), or None when all see all."""
    if not causal:
        return mask
    last = torch.arange(queries, device=device)[:, None] + keys - queries
    past = torch.arange(keys, device=device) <= last  # (T, S)
    return past if mask is None else mask & past


class KeyValues(NamedTuple):
    """What has been said so far, each (B, heads, S, D): the cache of a decoder."""

    keys: Tensor
    values: Tensor

    def __add__(self, later: tuple) -> "KeyValues":
        """The two one after the other in time."""
        return KeyValues(*(torch.cat(pair, -2) for pair in zip(self, later, strict=True)))


class MultiHeadAttention(nn.Module):
    """Heads that look up side by side: (B, T, W) over itself or over a context (B, S, W) -> (B, T, W).

    width: W. heads: how many; kv_heads: fewer for the keys and values, which heads then share.
    position: `rotary` or `alibi` act here, any other kind elsewhere.
    Source: Vaswani et al. (2017), arXiv:1706.03762, section 3.2.2.
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        kv_heads: int | None = None,
        position: str = "none",
        dropout: float = 0.0,
    ):
        super().__init__()
        kv_heads = kv_heads or heads
        if width % heads or heads % kv_heads:
            raise ValueError(f"width {width}, heads {heads} and kv_heads {kv_heads} must divide one another")
        self.width, self.heads, self.position, self.dropout = width, heads, position, dropout
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * (width // heads))  # one product where x asks itself
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """mask: True takes part, broadcast to (B, T, S). causal: each token sees itself and those before."""
        return self._look_up(*self._said(x, context), mask, causal)

    def project(self, context: Tensor, start: int = 0) -> KeyValues:
        """Keys and values of a context whose first token stands at `start`."""
        parts = (self.width, self.qkv.out_features - self.width)
        weight, bias = self.qkv.weight.split(parts)[1], self.qkv.bias.split(parts)[1]
        keys, values = functional.linear(context, weight, bias).chunk(2, -1)
        return KeyValues(self._heads(keys, start), self._heads(values))

    def attend(self, x: Tensor, past: KeyValues, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Look x (B, T, W) up in keys and values; the last query stands at the last key."""
        return self._look_up(self._queries(x, past), past, mask, causal)

    def weights(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """The attention map, (B, heads, T, S)."""
        q, past = self._said(x, context)
        mask = None if mask is None else mask.unsqueeze(-3)
        return attention_weights(q, past.keys, mask, causal, self._bias(q, past))

    def decode(self, x: Tensor, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
        """New tokens x (B, T, W) after a past: their outputs, and the past with them in it."""
        q, now = self._said(x, None, 0 if past is None else past.keys.shape[-2])
        past = now if past is None else past + now
        return self._look_up(q, past, None, causal=True), past

    def _said(self, x: Tensor, context: Tensor | None, start: int = 0) -> tuple[Tensor, KeyValues]:
        """What x asks, and what it, or a context, has to say: queries (B, heads, T, D), keys and values."""
        if context is not None:
            past = self.project(context)
            return self._queries(x, past), past
        rest = (self.qkv.out_features - self.width) // 2
        q, keys, values = self.qkv(x).split((self.width, rest, rest), -1)  # one product; split before it is turned
        return self._heads(q, start), KeyValues(self._heads(keys, start), self._heads(values))

    def _queries(self, x: Tensor, past: KeyValues) -> Tensor:
        q = functional.linear(x, self.qkv.weight[: self.width], self.qkv.bias[: self.width])
        return self._heads(q, past.keys.shape[-2] - x.shape[-2])

    def _heads(self, x: Tensor, start: int | None = None) -> Tensor:
        """Heads (B, heads, T, D) of (B, T, heads D); turned by where they stand, where positions do that."""
        heads = x.unflatten(-1, (-1, self.width // self.heads)).transpose(1, 2)
        return rotary(heads, start) if self.position == "rotary" and start is not None else heads

    def _bias(self, q: Tensor, past: KeyValues) -> Tensor | None:
        queries, keys = q.shape[-2], past.keys.shape[-2]
        return alibi(self.heads, queries, keys, q.device) if self.position == "alibi" else None

    def _look_up(self, q: Tensor, past: KeyValues, mask: Tensor | None, causal: bool) -> Tensor:
        mask = None if mask is None else mask.unsqueeze(-3)
        dropout = self.dropout if self.training else 0.0
        found = attention(q, past.keys, past.values, mask, causal, self._bias(q, past), dropout)
        return self.out(found.transpose(1, 2).flatten(2))


def _cast(bias: Tensor | None, q: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(q).expand(*q.shape[:2], *bias.shape[-2:])
