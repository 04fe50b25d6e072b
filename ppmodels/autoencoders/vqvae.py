"""Vector-quantised autoencoder: every row becomes a few codes out of a book, and the codes a language."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ppmodels.nn.generate import generate
from ppmodels.nn.quantizer import Quantized, VectorQuantizer
from ppmodels.nn.transformer import TransformerLM


class VQVAE(nn.Module):
    r"""An encoder, the nearest codes, a decoder.

    .. math:: |x - \hat x|^2 + |sg[z] - e|^2 + \beta |z - sg[e]|^2

    a mean over rows; with a codebook that follows by averages the second term is not there.

    encoder, decoder: any modules, (N, D) -> (N, T K) and (N, T K) -> (N, D), for T codes a row of K numbers each.

    Source: van den Oord, Vinyals and Kavukcuoglu (2017), arXiv:1711.00937, equation 3.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, positions: int, quantizer: VectorQuantizer, beta: float = 0.25
    ):
        super().__init__()
        if positions < 1 or beta < 0:
            raise ValueError(f"positions must be at least 1 and beta at least 0; got {positions} and {beta}")
        self.encoder, self.decoder, self.quantizer = encoder, decoder, quantizer
        self.positions, self.beta = positions, beta

    def forward(self, x: Tensor) -> tuple[Tensor, Quantized]:
        """Return the reconstruction, (N, D), and the codes with what they cost, (N, T) each."""
        found = self.quantizer(self._vectors(x))
        return self.decoder(found.values.flatten(1)), found

    def loss(self, x: Tensor) -> Tensor:
        """Return the objective of rows x, (N, D), as ().

        Raises: ValueError for rows that are not (N, D).
        """
        told, found = self(x)
        if told.shape != x.shape:
            raise ValueError(f"the decoder makes {tuple(told.shape[1:])} a row, and x has {tuple(x.shape[1:])}")
        own = 0.0 if self.quantizer.learned is None else found.codebook.sum(1)
        return ((told - x).square().sum(1) + own + self.beta * found.commitment.sum(1)).mean()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of rows, (N, T); the codebook stays as it is."""
        training = self.quantizer.training
        self.quantizer.eval()
        codes = self.quantizer(self._vectors(x)).codes
        self.quantizer.train(training)
        return codes

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the rows that codes (N, T) stand for, (N, D)."""
        return self.decoder(self.quantizer.codebook[codes].flatten(1))

    def _vectors(self, x: Tensor) -> Tensor:
        """What is to be quantised, (N, T, K)."""
        if x.ndim != 2:
            raise ValueError(f"x must be (rows, columns), images laid out as rows; it is {tuple(x.shape)}")
        return self.encoder(x).reshape(len(x), self.positions, -1)


class CodePrior(nn.Module):
    """A transformer over the codes of a row, first to last: p(codes) = prod_t p(code_t | codes before).

    codes: in the book. positions: T codes a row. options: of `TransformerLM`.
    """

    def __init__(self, codes: int, positions: int, **options: Any):
        super().__init__()
        self.codes, self.positions = codes, positions
        self.network = TransformerLM(codes + 1, **options)  # the last token says that a row begins

    def log_prob(self, codes: Tensor) -> Tensor:
        """Return log p(codes) of rows (N, T), nats, (N,)."""
        before = torch.cat([codes.new_full((len(codes), 1), self.codes), codes[:, :-1]], 1)
        logits = self.network(before)[..., : self.codes]  # (N, T, codes)
        return -cross_entropy(logits.mT, codes, reduction="none").sum(1)

    def sample(self, rows: int, generator: torch.Generator | None = None, **options: Any) -> Tensor:
        """Return codes (rows, T). options: of `generate`: temperature, top_k, top_p."""
        start = torch.full((rows, 1), self.codes, device=self.network.head.weight.device)
        return generate(_Begun(self.network), start, self.positions, generator=generator, **options)[:, 1:]


class _Begun:
    """The network, which never says again that a row begins."""

    def __init__(self, network: TransformerLM):
        self.network, self.training = network, network.training

    def train(self, mode: bool = True) -> Any:
        return self.network.train(mode)

    def __call__(self, tokens: Tensor) -> Tensor:
        return _without_last(self.network(tokens))

    def decode(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        logits, after = self.network.decode(tokens, state)
        return _without_last(logits), after


def _without_last(logits: Tensor) -> Tensor:
    """Logits (..., V) whose last token cannot be."""
    never = torch.arange(logits.shape[-1], device=logits.device) == logits.shape[-1] - 1
    return logits.masked_fill(never, float("-inf"))
