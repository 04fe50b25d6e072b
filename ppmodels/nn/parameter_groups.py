"""Which parameters learn slowly and without decay: what an optimiser must be told about a network."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from ppmodels.nn.position import TokenEmbedding

Options = dict[str, float]


def parameter_groups(
    module: nn.Module, lr: float = 4e-3, weight_decay: float = 0.01, slow_lr: float = 1e-3
) -> list[dict[str, Any]]:
    """Groups for any torch optimiser; every parameter is in one of them, once.

    Parameters that a module names in its attribute `slow` (a state space's step and poles) get `slow_lr` and
    no decay; norms, biases and embeddings get no decay; all others get both.
    """
    options = _options(lr, weight_decay, slow_lr)
    groups: dict[str, dict[str, Any]] = {kind: {"params": [], **own} for kind, own in options.items()}
    seen: set[int] = set()
    for _, parameter, kind in _kinds(module):
        if id(parameter) not in seen:
            seen.add(id(parameter))
            groups[kind]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def parameter_options(
    module: nn.Module, prefix: str = "", lr: float = 4e-3, weight_decay: float = 0.01, slow_lr: float = 1e-3
) -> Callable[[str], Options]:
    """The same groups as a function of a parameter's name; what is not the module's gets `lr` and no decay.

    prefix: before every name, `network$$$` for what a program says by `pyro.module("network", module)`.
    """
    options = _options(lr, weight_decay, slow_lr)
    told = {prefix + name: options[kind] for name, _, kind in _kinds(module)}
    return lambda name: dict(told.get(name, options["plain"]))


def _options(lr: float, weight_decay: float, slow_lr: float) -> dict[str, Options]:
    return {
        "slow": {"lr": min(lr, slow_lr), "weight_decay": 0.0},
        "plain": {"lr": lr, "weight_decay": 0.0},
        "decayed": {"lr": lr, "weight_decay": weight_decay},
    }


def _kinds(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, str]]:
    """Every parameter with its name and kind."""
    for path, part in module.named_modules():
        for name, parameter in part.named_parameters(recurse=False):
            whole = f"{path}.{name}" if path else name
            if name in getattr(part, "slow", ()):
                yield whole, parameter, "slow"
            elif parameter.dim() < 2 or isinstance(part, nn.Embedding | nn.LayerNorm | TokenEmbedding):
                yield whole, parameter, "plain"
            else:
                yield whole, parameter, "decayed"
