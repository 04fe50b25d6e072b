"""Trainable layers over the modern Hopfield update: association, pooling, and lookup."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class HopfieldLayer(nn.Module):
    r"""States look up stored patterns, in H heads, by one or more updates of a modern Hopfield network.

    .. math:: \xi \leftarrow \mathrm{softmax}(\beta\, \xi K^\top) K, \qquad y = W_o\,
        \mathrm{softmax}(\beta\, \xi K^\top) V

    with xi = W_q s, K = W_k x, V = W_v x. One update is multi-head attention; more move the state towards a
    fixed point first. beta is one a head, positive, and learned unless told otherwise.

    width: d of states and patterns. heads: H, dividing d. steps: updates. beta: where it starts; 1 / sqrt(d / H)
    when None.
    Source: Ramsauer et al. (2021), arXiv:2008.02217, section 3.
    """

    def __init__(
        self, width: int, heads: int = 1, steps: int = 1, beta: float | None = None, learn_beta: bool = True
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads must divide the width; {heads} and {width} were given")
        if steps < 1:
            raise ValueError(f"steps must be at least 1; it is {steps}")
        if beta is not None and not 0 < beta < math.inf:
            raise ValueError(f"beta must be positive and finite; it is {beta}")
        self.heads, self.steps = heads, steps
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        start = math.log(beta or (width // heads) ** -0.5)
        self.log_beta = nn.Parameter(torch.full((heads,), start), requires_grad=learn_beta)

    def forward(self, state: Tensor, patterns: Tensor, mask: Tensor | None = None) -> Tensor:
        """state: (B, S, d). patterns: (B, L, d). mask: (B, L), True takes part. Returns: (B, S, d)."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, S or L, d / H)
            for part, x in ((self.query, state), (self.key, patterns), (self.value, patterns))
        )
        mask = None if mask is None else mask[:, None, None, :]
        beta = self.log_beta.exp()[:, None, None]  # (H, 1, 1)
        for _ in range(self.steps - 1):
            query = scaled_dot_product_attention(beta * query, key, key, mask, scale=1.0)
        found = scaled_dot_product_attention(beta * query, key, value, mask, scale=1.0)
        return self.out(found.transpose(1, 2).flatten(-2))


class HopfieldPooling(nn.Module):
    """A set of any size to a fixed number of vectors: learned states look up the set.

    width: d. queries: Q. options: as of `HopfieldLayer`.
    """

    def __init__(self, width: int, queries: int = 1, **options: object) -> None:
        super().__init__()
        self.state = nn.Parameter(torch.randn(queries, width) / math.sqrt(width))
        self.layer = HopfieldLayer(width, **options)  # type: ignore[arg-type]

    def forward(self, patterns: Tensor, mask: Tensor | None = None) -> Tensor:
        """patterns: (B, L, d). mask: (B, L), True takes part. Returns: (B, Q, d)."""
        return self.layer(self.state.expand(len(patterns), -1, -1), patterns, mask)


class HopfieldLookup(nn.Module):
    """States look up patterns that the layer learned: a memory of prototypes.

    width: d. stored: L. options: as of `HopfieldLayer`.
    """

    def __init__(self, width: int, stored: int, **options: object) -> None:
        super().__init__()
        self.patterns = nn.Parameter(torch.randn(stored, width) / math.sqrt(width))
        self.layer = HopfieldLayer(width, **options)  # type: ignore[arg-type]

    def forward(self, state: Tensor) -> Tensor:
        """state: (B, S, d). Returns: (B, S, d)."""
        return self.layer(state, self.patterns.expand(len(state), -1, -1))
