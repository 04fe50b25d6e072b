"""Which words stand near which: as pairs, and as bands of blocks."""

from typing import NamedTuple

import torch
from torch import Tensor


def pairs(sentence: Tensor, reach: int | Tensor) -> Tensor:
    """Return all (centre, context), (P, 2), with the context at most `reach` words away; sentence (T,).

    reach: c, or one a centre, (T,), for dynamic windows.
    """
    length = len(sentence)
    place = torch.arange(length)
    distance = (place[:, None] - place).abs()
    near = (distance > 0) & (distance <= torch.as_tensor(reach).expand(length)[:, None])
    centre, context = near.nonzero(as_tuple=True)
    return torch.stack([sentence[centre], sentence[context]], -1)


class Windows(NamedTuple):
    """Centres in blocks, the words around a block, and which of them are in a centre's window.

    centre: (n, B). around: (n, B + 2c). near: (n, B, B + 2c), 1 or 0, a band along the diagonal.
    """

    centre: Tensor
    around: Tensor
    near: Tensor


def blocks(tokens: Tensor, sentence: Tensor, reach: Tensor, window: int, dtype: torch.dtype, block: int) -> Windows:
    """Return the windows of T consecutive words, T a multiple of the block.

    tokens, sentence: words and the sentences they are of, each with c = window more on either side, (T + 2c,);
    a sentence below 0 is padding. reach: how far each centre sees, (T,).
    """
    width = block + 2 * window
    inside = slice(window, len(tokens) - window)
    distance = (torch.arange(width, device=tokens.device) - torch.arange(block, device=tokens.device)[:, None]) - window
    distance = torch.where(distance == 0, width, distance.abs())  # (B, B + 2c); no word is its own context
    own = sentence[inside].reshape(-1, block, 1)  # (n, B, 1)
    same = (own == sentence.unfold(0, width, block)[:, None]) & (own >= 0)
    near = same & (distance <= reach.reshape(-1, block, 1))
    return Windows(tokens[inside].reshape(-1, block), tokens.unfold(0, width, block), near.to(dtype))
