"""One posterior to draw from: a Pyro program with its data, and the quantities by which draws are scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One posterior.

    model, args: for `inference.mcmc.fit`. data: the same numbers as NumPy arrays, for the peers.
    scored: what is held against the reference, from draws by site, each (chain, draw, *site); a peer's draws
    may lack what is merely computed from the rest.
    latents: values of the Pyro program's latent sites -> values of the peers' sites, where they differ.
    reference: mean and sd of every scored quantity, where somebody has long runs.
    """

    name: str
    model: Any
    args: tuple[Any, ...]
    data: Arrays
    scored: Callable[[Arrays], Arrays]
    latents: Callable[[Arrays], Arrays] = dict
    reference: Mapping[str, Mapping[str, Any]] | None = None
