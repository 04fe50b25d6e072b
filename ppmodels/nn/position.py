"""Where a token stands, told to a network that would not know: six ways."""

import torch
from torch import Tensor, nn
from torch.nn import functional

POSITIONS = ("none", "binary", "sinusoidal", "learned", "rotary", "alibi")


class PositionEmbedding(nn.Module):
    """What is added to the tokens: (T,) positions -> (T, W). Nothing for `none`, `rotary` and `alibi`.

    kind: one of `POSITIONS`. longest: how many positions `learned` knows; the others have no limit.
    """

    def __init__(self, kind: str, width: int, longest: int | None = None):
        super().__init__()
        if kind not in POSITIONS:
            raise ValueError(f"no position {kind!r}; there are: {', '.join(POSITIONS)}")
        if kind == "learned" and longest is None:
            raise ValueError("learned positions need `longest`, how many there are")
        self.kind, self.width, self.longest = kind, width, longest
        self.table = nn.Parameter(0.02 * torch.randn(longest or 0, width)) if kind == "learned" else None

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x: (B, T, W), whose first token stands at `start`; the same with its positions added.

        Raises: ValueError when `learned` positions run out.
        """
        stop = start + x.shape[-2]
        if self.table is not None:
            if stop > len(self.table):
                raise ValueError(f"position {stop} is beyond the {len(self.table)} learned ones")
            return x + self.table[start:stop]
        positions = torch.arange(start, stop, device=x.device)
        if self.kind == "sinusoidal":
            return x + sinusoidal(positions, self.width).to(x)
        if self.kind == "binary":
            return x + binary(positions, self.width).to(x)
        return x


class TokenEmbedding(nn.Module):
    """Tokens (B, T) and where they stand: (B, T, W).

    Fixed positions have entries near one and would drown weights of 0.02, so tokens are scaled by sqrt(W)
    there (Vaswani et al. (2017), arXiv:1706.03762, section 3.4).
    """

    def __init__(self, vocabulary: int, width: int, position: str = "none", longest: int | None = None):
        super().__init__()
        self.position = PositionEmbedding(position, width, longest)
        self.scale = width**0.5 if position in ("sinusoidal", "binary") else 1.0
        self.weight = nn.Parameter(0.02 * torch.randn(vocabulary, width))

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """tokens: integers, the first of which stands at `start`.

        Raises: ValueError for anything else, and when there is no token.
        """
        if tokens.dim() != 2 or tokens.shape[1] == 0 or torch.is_floating_point(tokens):
            given = f"{tokens.dtype} {tuple(tokens.shape)}"
            raise ValueError(f"expected integer tokens (batch, length >= 1); got {given}")
        return self.position(self.scale * functional.embedding(tokens, self.weight), start)


class FeatureEmbedding(nn.Module):
    """Numbers (B, T, I) and where they stand: (B, T, W)."""

    def __init__(self, inputs: int, width: int, position: str = "none", longest: int | None = None):
        super().__init__()
        self.position = PositionEmbedding(position, width, longest)
        self.linear = nn.Linear(inputs, width)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """x: (B, T, I), whose first place is `start`.

        Raises: ValueError for other shapes, and when there is no place.
        """
        if x.dim() != 3 or x.shape[1] == 0 or x.shape[2] != self.linear.in_features:
            raise ValueError(f"expected (batch, length >= 1, {self.linear.in_features}); got {tuple(x.shape)}")
        return self.position(self.linear(x), start)


def binary(positions: Tensor, bits: int) -> Tensor:
    """The digits of a position, lowest first, (T, bits); positions from 2^bits on repeat."""
    shift = torch.arange(bits, device=positions.device).clamp(max=62)  # no position reaches the 62nd bit
    return ((positions[:, None] >> shift) & 1).double()


def sinusoidal(positions: Tensor, width: int, base: float = 10000.0) -> Tensor:
    r"""Smooth digits, (T, W): p_{i,2j} = sin(i w_j), p_{i,2j+1} = cos(i w_j), w_j = base^{-2j/W}.

    The inner product of two depends on their distance alone, and one step is a fixed rotation.

    Raises: ValueError when the width is odd.
    Source: Vaswani et al. (2017), arXiv:1706.03762, section 3.5.
    """
    phase = positions.double()[:, None] * frequencies(width, base, positions.device)  # (T, W / 2)
    return torch.stack([phase.sin(), phase.cos()], -1).flatten(-2)


def rotary(x: Tensor, start: int = 0, base: float = 10000.0) -> Tensor:
    r"""Turn each pair of features by its position times w_j, so that scores depend on distance alone.

    x: (..., T, D), D even, whose first row stands at `start`. Returns: the same shape.
    Source: Su et al. (2021), arXiv:2104.09864, equation 34.
    """
    positions = torch.arange(start, start + x.shape[-2], device=x.device, dtype=torch.float64)
    phase = positions[:, None] * frequencies(x.shape[-1], base, x.device)  # (T, D / 2)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # halves have no complex product
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))  # (..., T, D / 2)
    turned = pairs * torch.polar(torch.ones_like(phase), phase).to(pairs.dtype)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def alibi(heads: int, queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    r"""A penalty that grows with distance, added to the scores, (heads, queries, keys).

    Head h has slope :math:`2^{-8h/\mathrm{heads}}`. The last query stands at the last key. Without a causal
    mask it is symmetric: an encoder that has nothing else cannot tell a sequence from its mirror image.

    Source: Press, Smith and Lewis (2021), arXiv:2108.12409, section 3.
    """
    slope = 2.0 ** (-8.0 * torch.arange(1, heads + 1, device=device) / heads)
    row = torch.arange(queries, device=device)[:, None] + keys - queries
    distance = (row - torch.arange(keys, device=device)).abs()  # (queries, keys)
    return -slope[:, None, None] * distance


def frequencies(width: int, base: float = 10000.0, device: torch.device | None = None) -> Tensor:
    """w_j = base^(-2j / width), (width / 2,), in double precision: phases grow with the position."""
    if width % 2:
        raise ValueError(f"sines and cosines come in pairs: the width must be even; got {width}")
    return base ** (-torch.arange(0, width, 2, device=device, dtype=torch.float64) / width)
