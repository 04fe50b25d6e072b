"""State-space layers on top of each other: a sequence model for regression, classes or tokens."""

from typing import Any

import torch
from torch import Tensor, nn

from ppmodels.nn.ssm_layer import SSMLayer, SSMState

POOLS = ("none", "mean", "last")


class SSMStack(nn.Module):
    """Residual blocks between an encoder and a linear head: (B, L, I) or (B, L) -> (B, L, O) or (B, O).

    Each block is x + dropout(layer(norm(x))).

    inputs: I, the number of features, or of tokens when `tokens`. outputs: O; None leaves the H features as they are.
    width: H. layers: how many.
    pool: `none` for an output at every time, `mean` or `last` for one a sequence.
    options: of `SSMLayer`: system, bidirectional, gate, states, init, method, dt.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int | None,
        width: int = 64,
        layers: int = 4,
        pool: str = "none",
        tokens: bool = False,
        dropout: float = 0.0,
        **options: Any,
    ):
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"no pooling {pool!r}; there are: {', '.join(POOLS)}")
        self.pool = pool
        self.encoder = nn.Embedding(inputs, width) if tokens else nn.Linear(inputs, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.layers = nn.ModuleList(SSMLayer(width, dropout=dropout, **options) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.final = nn.LayerNorm(width)
        self.head = nn.Identity() if outputs is None else nn.Linear(width, outputs)

    def forward(self, x: Tensor, lengths: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """x: (B, L, I) or (B, L). lengths: of each sequence, (B,), the rest being padding that nobody reads.

        Returns: (B, L, O), or (B, O) when pooled.
        """
        x = self.encoder(x)  # (B, L, H)
        real = None if lengths is None else valid(lengths, x.shape[1])[..., None]  # (B, L, 1)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            inner = norm(x) if real is None else norm(x) * real
            x = x + self.dropout(layer(inner, rate))
        return self.head(self._pooled(self.final(x), lengths))

    def default_state(self, batch: int = 1, rate: float = 1.0) -> list[SSMState]:
        """The state of every layer before the first input."""
        return [layer.default_state(batch, rate) for layer in self._layers()]

    def step(self, x: Tensor, state: list[SSMState]) -> tuple[Tensor, list[SSMState]]:
        """One input, (B, I) or (B,): the output (B, O) and the states after it."""
        return self._advance(x, state, "step")

    def prefill(self, x: Tensor, state: list[SSMState]) -> tuple[Tensor, list[SSMState]]:
        """A stretch of inputs, (B, L, I) or (B, L): outputs (B, L, O) and the states after it."""
        return self._advance(x, state, "prefill")

    def decode(self, tokens: Tensor, state: list[SSMState] | None = None) -> tuple[Tensor, list[SSMState]]:
        """New tokens (B, T) after a state: logits (B, T, O) and the next state; what `generate` calls."""
        state = self.default_state(len(tokens)) if state is None else state
        if tokens.shape[1] > 1:
            return self.prefill(tokens, state)
        logits, state = self.step(tokens[:, 0], state)
        return logits[:, None], state

    def _advance(self, x: Tensor, state: list[SSMState], how: str) -> tuple[Tensor, list[SSMState]]:
        if self.pool == "mean":
            raise ValueError("mean pooling looks at the whole sequence; step by step needs `none` or `last`")
        x, after = self.encoder(x), []
        for norm, layer, before in zip(self.norms, self.layers, state, strict=True):
            y, now = getattr(layer, how)(norm(x), before)
            x = x + self.dropout(y)
            after.append(now)
        return self.head(self.final(x)), after

    def _pooled(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        if self.pool == "none":
            return x
        if lengths is None:
            return x.mean(1) if self.pool == "mean" else x[:, -1]
        if self.pool == "last":
            return x[torch.arange(len(x), device=x.device), lengths - 1]
        real = valid(lengths, x.shape[1])[..., None]
        return (x * real).sum(1) / lengths[:, None]

    def _layers(self) -> list[SSMLayer]:
        return [layer for layer in self.layers if isinstance(layer, SSMLayer)]


def valid(lengths: Tensor, longest: int) -> Tensor:
    """True where a padded sequence has a value, (B, L).

    Raises: ValueError when a length is not between 1 and the padded one.
    """
    if lengths.min() < 1 or lengths.max() > longest:
        raise ValueError(f"lengths must lie between 1 and {longest}; got {lengths.tolist()}")
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
