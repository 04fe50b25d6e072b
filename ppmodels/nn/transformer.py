"""Transformers of three kinds: encoder, decoder-only, encoder-decoder."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ppmodels.nn.attention import KeyValues
from ppmodels.nn.block import Block
from ppmodels.nn.position import FeatureEmbedding, TokenEmbedding


class Encoder(nn.Module):
    """Blocks over features, every token seeing every other: (B, T, W) -> (B, T, W), normed.

    options: of `Block`.
    """

    def __init__(self, width: int, layers: int = 4, **options: Any):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, **options) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        scale_residuals(self, layers)

    @property
    def stack(self) -> list[Block]:
        """The blocks, first to last."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(
        self, x: Tensor, padding: Tensor | None = None, context: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """padding: True where there is a token, (B, T). context: for blocks with `cross`, (B, S, W)."""
        mask = None if padding is None else padding[:, None]
        for block in self.stack:
            x = block(x, context, mask, causal=causal)
        return self.norm(x)


class CausalTransformer(nn.Module):
    """Every place sees itself and those before it: (B, T, I), or tokens (B, T), to features (B, T, W), normed.

    inputs: I, the number of features, or of tokens when `tokens`. width: W. position: see `position.py`.
    longest: how many positions `learned` has. dropout, heads, kv_heads: of `Block`.
    """

    def __init__(
        self,
        inputs: int,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        position: str = "rotary",
        longest: int | None = None,
        dropout: float = 0.0,
        kv_heads: int | None = None,
        tokens: bool = False,
    ):
        super().__init__()
        self.embedding = (TokenEmbedding if tokens else FeatureEmbedding)(inputs, width, position, longest)
        self.dropout = nn.Dropout(dropout)
        options = {"heads": heads, "position": position, "dropout": dropout, "kv_heads": kv_heads}
        self.encoder = Encoder(width, layers, **options)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, I) or tokens (B, T). Returns: (B, T, W); the features at t know x up to t."""
        return self.encoder(self.dropout(self.embedding(x)), causal=True)

    def decode(self, x: Tensor, state: list[KeyValues] | None = None) -> tuple[Tensor, list[KeyValues]]:
        """New places (B, T, ...) after a state: what `forward` says of them, and the next state."""
        start = 0 if not state else state[0].keys.shape[-2]
        x = self.dropout(self.embedding(x, start))
        after, blocks = [], self.encoder.stack
        for block, past in zip(blocks, state or [None] * len(blocks), strict=True):
            x, now = block.decode(x, past)
            after.append(now)
        return self.encoder.norm(x), after


class TransformerLM(CausalTransformer):
    """Decoder-only: tokens (B, T) to logits of the next (B, T, V). The head shares the embedding's weights.

    vocabulary: V. options: of `CausalTransformer`.
    Source: Radford et al. (2019), Language Models are Unsupervised Multitask Learners.
    """

    def __init__(self, vocabulary: int, width: int = 128, layers: int = 4, heads: int = 4, **options: Any):
        super().__init__(vocabulary, width, layers, heads, tokens=True, **options)
        assert isinstance(self.embedding, TokenEmbedding)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        """x: tokens (B, T). Returns: (B, T, V); the logits at t know the tokens up to t."""
        return self.head(super().forward(x))

    def decode(self, x: Tensor, state: list[KeyValues] | None = None) -> tuple[Tensor, list[KeyValues]]:
        """New tokens (B, T) after a state: logits (B, T, V) and the next state; what `generate` calls."""
        features, state = super().decode(x, state)
        return self.head(features), state


class DecoderState(NamedTuple):
    """The target so far and the source, as each block's keys and values, and which source tokens are real."""

    past: list[KeyValues | None]
    heard: list[KeyValues]
    mask: Tensor | None


class EncoderDecoder(nn.Module):
    """Source tokens (B, S) and target tokens (B, T) to logits of the next target token (B, T, V).

    Source: Vaswani et al. (2017), arXiv:1706.03762, figure 1, with the norm first.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        position: str = "sinusoidal",
        longest: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.embedding = TokenEmbedding(vocabulary, width, position, longest)
        options = {"heads": heads, "position": position, "dropout": dropout}
        self.encoder = Encoder(width, layers, **options)
        self.decoder = Encoder(width, layers, cross=True, **options)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, source: Tensor, target: Tensor, padding: Tensor | None = None) -> Tensor:
        """padding: True where the source has a token, (B, S). Returns: (B, T, V)."""
        return self.decode(target, self.encode(source, padding))[0]

    def encode(self, source: Tensor, padding: Tensor | None = None) -> DecoderState:
        """Read the source once: the state from which a target is decoded."""
        context = self.encoder(self.embedding(source), padding)
        heard = [block.cross.project(context) for block in self.decoder.stack if block.cross is not None]
        return DecoderState([None] * len(heard), heard, None if padding is None else padding[:, None])

    def decode(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """New target tokens (B, T) after a state: logits (B, T, V) and the next state."""
        start = 0 if state.past[0] is None else state.past[0].keys.shape[-2]
        x = self.embedding(tokens, start)
        after = []
        for block, past, heard in zip(self.decoder.stack, state.past, state.heard, strict=True):
            x, now = block.decode(x, past, heard, state.mask)
            after.append(now)
        return self.head(self.decoder.norm(x)), state._replace(past=after)


def scale_residuals(module: nn.Module, layers: int) -> None:
    """Start what adds to the residual stream lower by sqrt(2 layers): the stream's variance stays one block's.

    All else keeps torch's start, which follows the width; a fixed 0.02 is right for widths near 1000 and
    leaves small networks at a plateau.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
            if name.endswith((".out", "mlp.2")):
                with torch.no_grad():
                    part.weight.div_(math.sqrt(2 * max(layers, 1)))
