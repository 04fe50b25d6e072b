"""All that a training run is, to disk and back: so that one that was killed ends as if it had not been."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inference.training import processes
from inference.training.average import write
from inference.training.checkpoint import Checkpoint


def save(training: Any) -> None:
    """Write the state of a `Training`, where a checkpoint is wanted and due."""
    checkpoint = training.checkpoint
    if not isinstance(checkpoint, Checkpoint):
        return
    random = processes.gather(_random())
    last = training.ended or training.step == training.num_steps
    if processes.number() == 0 and (last or checkpoint.due()):
        checkpoint.save(_tensors(training) | _numbered(random), training.descent.facts() | _facts(training))


def resume(training: Any, loss: Callable[[Tensor | None], Tensor]) -> None:
    """Go on from the checkpoint, where there is one.

    Raises: ValueError when it was written by another number of processes.
    """
    checkpoint = training.checkpoint
    found = checkpoint.load() if isinstance(checkpoint, Checkpoint) else None
    if found is None:
        return
    tensors, facts = found
    if facts["processes"] != processes.count():
        raise ValueError(f"the run had {facts['processes']} processes, and cannot go on with {processes.count()}")
    if _of("parameter", tensors).keys() - training.parameters().keys():  # programs make their parameters at first use
        loss(training.batch(0)[0])
    training.know()
    write(training.parameters(), _of("parameter", tensors))
    write(training.buffers(), _of("buffer", tensors))
    training.descent.restore(tensors, facts)
    training.objective, training.stopped = tensors["objective"].tolist(), facts["stopped"]
    training.step = len(training.objective)
    if training.average is not None:
        training.average.values = _of("average", tensors)
    if training.plateau is not None:
        training.plateau.restore(facts["plateau"])
    if training.held_out is not None:
        training.held_out.restore(facts["held_out"], _of("best", tensors))
    _set_random(_of("random", tensors)[str(processes.number())])


def _tensors(training: Any) -> dict[str, Tensor]:
    kinds = {
        "parameter": training.parameters(),
        "buffer": training.buffers(),
        "average": {} if training.average is None else training.average.values,
        "best": {} if training.held_out is None else training.held_out.best,
    }
    named = {f"{kind} {name}": value for kind, values in kinds.items() for name, value in values.items()}
    return named | training.descent.tensors() | {"objective": torch.tensor(training.objective, dtype=torch.float64)}


def _facts(training: Any) -> dict[str, Any]:
    return {
        "plateau": None if training.plateau is None else training.plateau.state(),
        "held_out": None if training.held_out is None else training.held_out.state(),
        "stopped": training.stopped,
        "processes": processes.count(),
    }


def _of(kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of this kind, by name; on the device that programs work on."""
    here = torch.get_default_device() if kind in {"average", "best"} else torch.device("cpu")
    return {name.split(" ", 1)[1]: v.to(here) for name, v in tensors.items() if name.split(" ", 1)[0] == kind}


def _numbered(random: list[Tensor]) -> dict[str, Tensor]:
    return {f"random {k}": state for k, state in enumerate(random)}


def _random() -> Tensor:
    """The state of torch's generators: the CPU's, and this process's GPU's behind it."""
    gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return torch.cat([torch.get_rng_state(), *gpu])


def _set_random(state: Tensor) -> None:
    length = len(torch.get_rng_state())
    torch.set_rng_state(state[:length])
    if len(state) > length and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[length:])
