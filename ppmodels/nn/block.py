"""One layer of a transformer: attention, cross-attention, and a network for each token."""

from torch import Tensor, nn

from ppmodels.nn.attention import KeyValues, MultiHeadAttention


class Block(nn.Module):
    """Attention, then over a context when `cross`, then a two-layer network; each adds to what it reads.

    The norm comes first, so that a deep stack starts as nearly the identity.

    width: W. heads, kv_heads, position: of the attention. hidden: of the network, 4 W if not said.
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        cross: bool = False,
        position: str = "none",
        hidden: int | None = None,
        dropout: float = 0.0,
        kv_heads: int | None = None,
    ):
        super().__init__()
        hidden = hidden or 4 * width
        self.norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, kv_heads, position, dropout)
        self.cross_norm = nn.LayerNorm(width) if cross else None
        self.cross = MultiHeadAttention(width, heads, kv_heads, dropout=dropout) if cross else None
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """x: (B, T, W). context: (B, S, W). mask, context_mask: True takes part, (B or 1, T or 1, T or S)."""
        x = x + self.dropout(self.attention(self.norm(x), mask=mask, causal=causal))
        heard = None if self.cross is None or context is None else self.cross.project(context)
        return self._finish(x, heard, context_mask)

    def decode(
        self,
        x: Tensor,
        past: KeyValues | None,
        heard: KeyValues | None = None,
        context_mask: Tensor | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """New tokens x (B, T, W) after a past; `heard` is the context's keys and values."""
        y, past = self.attention.decode(self.norm(x), past)
        return self._finish(x + self.dropout(y), heard, context_mask), past

    def _finish(self, x: Tensor, heard: KeyValues | None, context_mask: Tensor | None) -> Tensor:
        if self.cross is not None and self.cross_norm is not None and heard is not None:
            x = x + self.dropout(self.cross.attend(self.cross_norm(x), heard, context_mask))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))
