"""Tokens of many kinds in one transformer: see some of all, predict some of the rest."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppmodels.nn.transformer import Encoder
from ppmodels.nn.vision import shuffled, take


class MaskedMultimodal(nn.Module):
    """An encoder reads a few tokens of any modality, a decoder says what stands at other places.

    Every modality is a set of discrete tokens: words, or the codes of an autoencoder for images. Once
    trained, any of them can be predicted from any others.

    modalities: name -> (vocabulary, length). seen, asked: tokens a row for the encoder and the decoder.
    width, layers, heads: of both.
    Source: Mizrahi et al. (2023), arXiv:2312.06647, section 2.
    """

    def __init__(
        self,
        modalities: Mapping[str, tuple[int, int]],
        seen: int,
        asked: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
    ):
        super().__init__()
        self.modalities = dict(modalities)
        total = sum(length for _, length in self.modalities.values())
        if seen < 1 or asked < 1 or seen + asked > total:
            raise ValueError(f"of {total} tokens, {seen} cannot be seen and {asked} others asked for")
        self.seen, self.asked = seen, asked
        self.embeddings = nn.ModuleDict({k: nn.Embedding(v, width) for k, (v, _) in self.modalities.items()})
        # One learned vector a place, which tells position and modality at once.
        self.places = nn.Parameter(0.02 * torch.randn(total, width))
        self.question = nn.Parameter(0.02 * torch.randn(width))
        self.encoder = Encoder(width, layers, heads=heads)
        self.decoder = Encoder(width, layers, heads=heads, cross=True)
        self.heads = nn.ModuleDict({k: _ignorant(width, v) for k, (v, _) in self.modalities.items()})
        for part in self.modules():
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)  # as the places: a token must not drown where it stands

    def loss(self, tokens: Mapping[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Mean cross-entropy of tokens drawn at random, given others drawn at random, ().

        tokens: every modality, (B, its length).
        """
        missing = [name for name in self.modalities if name not in tokens]
        if missing:
            raise ValueError(f"training needs every modality; missing: {', '.join(missing)}")
        first = next(iter(tokens.values()))
        order = shuffled(len(first), len(self.places), first.device, generator)  # (B, L)
        asked = order[:, self.seen : self.seen + self.asked].sort(-1).values
        answers = self._answer(take(self._embed(tokens), order[:, : self.seen]), asked)  # (B, asked, W)
        total = answers.new_zeros(())
        for name, span in self._spans().items():
            here = (asked >= span.start) & (asked < span.stop)  # (B, asked)
            rows = torch.arange(len(asked), device=asked.device)[:, None].expand_as(asked)[here]
            target = tokens[name][rows, asked[here] - span.start]
            total = total + functional.cross_entropy(self.heads[name](answers[here]), target, reduction="sum")
        return total / asked.numel()

    def predict(self, given: Mapping[str, Tensor], wanted: str) -> Tensor:
        """Logits of one modality from whole others, (B, its length, its vocabulary)."""
        unknown = [name for name in [*given, wanted] if name not in self.modalities]
        if unknown or wanted in given or not given:
            raise ValueError(f"cannot predict {wanted!r} from {sorted(given)}; there are: {', '.join(self.modalities)}")
        context = self._embed(given)
        span = self._spans()[wanted]
        asked = torch.arange(span.start, span.stop, device=context.device).expand(len(context), -1)
        return self.heads[wanted](self._answer(context, asked))

    def _embed(self, tokens: Mapping[str, Tensor]) -> Tensor:
        spans = self._spans()
        parts = [self.embeddings[k](tokens[k]) + self.places[spans[k]] for k in self.modalities if k in tokens]
        return torch.cat(parts, 1)

    def _answer(self, seen: Tensor, asked: Tensor) -> Tensor:
        return self.decoder(self.question + self.places[asked], context=self.encoder(seen))

    def _spans(self) -> dict[str, slice]:
        spans, start = {}, 0
        for name, (_, length) in self.modalities.items():
            spans[name] = slice(start, start + length)
            start += length
        return spans


def _ignorant(width: int, vocabulary: int) -> nn.Linear:
    """A head that starts with every token as likely as any other."""
    head = nn.Linear(width, vocabulary)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
