"""Which parameters learn slowly and without decay: what an optimiser must be told about a network."""

from typing import Any

from torch import nn

from ppmodels.nn.position import TokenEmbedding


def parameter_groups(
    module: nn.Module, lr: float = 4e-3, weight_decay: float = 0.01, slow_lr: float = 1e-3
) -> list[dict[str, Any]]:
    """Groups for any torch optimiser; every parameter is in one of them, once.

    Parameters that a module names in its attribute `slow` (a state space's step and poles) get `slow_lr` and
    no decay; norms, biases and embeddings get no decay; all others get both.
    """
    slow, plain, decayed = [], [], []
    seen: set[int] = set()
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if name in getattr(part, "slow", ()):
                slow.append(parameter)
            elif parameter.dim() < 2 or isinstance(part, nn.Embedding | nn.LayerNorm | TokenEmbedding):
                plain.append(parameter)
            else:
                decayed.append(parameter)
    groups = [
        {"params": slow, "lr": min(lr, slow_lr), "weight_decay": 0.0},
        {"params": plain, "lr": lr, "weight_decay": 0.0},
        {"params": decayed, "lr": lr, "weight_decay": weight_decay},
    ]
    return [group for group in groups if group["params"]]
