"""Draw token after token from a network that gives logits of the next."""

from typing import Any, Protocol

import torch
from torch import Tensor


class Decodes(Protocol):
    """What `generate` needs: `TransformerLM` and `SSMStack(tokens=True)` have it."""

    training: bool

    def __call__(self, tokens: Tensor, /) -> Tensor: ...

    def decode(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]: ...

    def train(self, mode: bool = True) -> Any: ...


@torch.no_grad()
def generate(
    network: Decodes,
    prompt: Tensor,
    count: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    cached: bool = True,
    context: int | None = None,
    state: Any = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue a prompt (B, T >= 1) by `count` tokens, without dropout: (B, T + count).

    temperature: 0 takes the likeliest token. cached: carry a state, instead of reading everything again
    for each token. context: without a cache, only the last so many tokens are read. state: where to start.
    Raises: ValueError for an empty prompt, or a cut that is not one.
    """
    if prompt.dim() != 2 or prompt.shape[1] == 0:
        raise ValueError(f"the prompt needs at least one token a row; got {tuple(prompt.shape)}")
    if not cached and state is not None:
        raise ValueError("a state can only be continued with the cache")
    was_training = network.training
    network.train(False)
    try:
        tokens = fresh = prompt
        for _ in range(count):
            if cached:
                logits, state = network.decode(fresh, state)
            else:
                logits = network(tokens if context is None else tokens[:, -context:])
            fresh = draw(logits[:, -1], temperature, top_k, top_p, generator)[:, None]
            tokens = torch.cat([tokens, fresh], 1)
    finally:
        network.train(was_training)
    return tokens


def draw(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One token a row of logits (B, V), (B,)."""
    if temperature < 0:
        raise ValueError(f"temperature must not be negative; got {temperature}")
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = cut(logits / temperature, top_k, top_p).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def cut(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Hide unlikely tokens, (B, V): all but the k likeliest; then all but the fewest that reach mass p.

    The likeliest is always kept, and of equal logits exactly as many as were asked for.

    Source: top-p: Holtzman et al. (2019), arXiv:1904.09751, section 3.1.
    """
    if (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise ValueError(f"top_k must be at least 1 and top_p in (0, 1]; got {top_k} and {top_p}")
    ranked, order = logits.sort(stable=True, dim=-1, descending=True)
    if top_k is not None:
        ranked = ranked.masked_fill(torch.arange(ranked.shape[-1], device=ranked.device) >= top_k, float("-inf"))
    if top_p is not None and top_p < 1:
        mass = ranked.softmax(-1)
        ranked = ranked.masked_fill(mass.cumsum(-1) - mass >= top_p, float("-inf"))
    return torch.empty_like(logits).scatter(-1, order, ranked)
