"""Deep ensembles: the same model climbed to its mode from many starts, on all rows or on bootstrapped ones."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.base import Fit, Unsupported, fresh
from inference.density.minibatch import Minibatches
from inference.density.prior import from_prior
from inference.density.some_rows import rows_of
from inference.training import Checkpoint, Plateau, Training
from inference.training.given import with_gradient
from inference.training.looks import Looks


def fit(
    model: Any,
    *args: Any,
    seed: int = 0,
    num_samples: int = 10,
    num_steps: int = 10_000,
    lr: float = 0.02,
    batch_size: int | None = None,
    bootstrap: bool = False,
    tol: float = 1e-5,
    patience: int = 2,
    compile: bool | str = "auto",
    checkpoint: str | Path | None = None,
    progress_bar: bool = False,
    **kwargs: Any,
) -> Fit:
    """Climb log p(latents, observed) from draws of the prior, all members side by side; each end is one draw.

    The predictive distribution is the members' mixture: as far as members disagree, the model does not know.

    num_samples: members. num_steps, lr: of Adam; lr falls, and the climb ends, where the density stands still.
    bootstrap: give every member as many rows as there are, drawn with replacement.
    tol, patience: as in `svi`.
    checkpoint: a file to go on from, if it is there, and to write to; the result is the same to the bit.

    Returns: a Fit with the members as draws of chain 1, trace `log_density`, their mean, and stats `lp`.
    Raises: Unsupported where rows cannot be taken apart, and bootstrap or batch_size asks for it.
    Source: Lakshminarayanan, Pritzel and Blundell (2017), NeurIPS; Breiman (1996) for the bootstrap.
    """
    began = time.perf_counter()
    if num_samples < 1:
        raise ValueError(f"num_samples, the members, must be at least 1; it is {num_samples}")
    if bootstrap:
        rows_of(model, args, kwargs)
    with fresh(model, args, kwargs, seed=seed) as own:
        target = Minibatches.of(
            own, args, kwargs, chains=num_samples, batch_size=batch_size, own_rows=bootstrap, jacobian=False,
            calls=num_steps, compile=compile,
        )  # fmt: skip
        generator = torch.Generator(target.density.device).manual_seed(seed)
        x = from_prior(target.density, num_samples, generator).requires_grad_()
        rows = args[0].rows if target.batch_size is not None else 0
        drawn = torch.randint(rows, (num_samples, rows), generator=generator) if bootstrap else None
        saved = None
        if checkpoint is not None:
            run = {"method": "ensemble", "seed": seed, "lr": lr, "members": num_samples, "batch_size": batch_size}
            saved = Checkpoint(Path(checkpoint), {**run, "bootstrap": bootstrap})
        looks = Looks(lambda: float(target.everything(x.detach())[0].mean()))
        training = Training(
            num_steps, lr, Plateau(tol, patience), rows, batch_size, seed=seed, checkpoint=saved,
            progress_bar=progress_bar, callbacks=[looks.take] if rows else [],
        )  # fmt: skip
        training.run(lambda index: _loss(target, drawn, index, x), lambda: {"x": x})
        assert training.plateau is not None
        with torch.no_grad():
            lp, _ = target.everything(x.detach())
            draws = {name: value[None] for name, value in target.density.constrain(x.detach()).items()}
        if not bool(x.isfinite().all()):
            raise Unsupported("a member has left the numbers; lower lr")
        info = {"seed": seed, "converged": training.plateau.converged, "message": training.plateau.message()}
        info |= {"num_steps": training.step, "lr": lr, "batch_size": batch_size, "bootstrap": bootstrap}
        info |= {"executor": target.executor, "seconds": time.perf_counter() - began}
        trace = {"log_density": torch.tensor(looks.values if rows else training.objective)}
        return Fit(own, args, kwargs, "ensemble", draws, trace, {"lp": lp[None]}, info, state={"x": x.detach()})


def _loss(target: Minibatches, drawn: Tensor | None, index: Tensor | None, x: Tensor) -> Tensor:
    """Minus the members' mean log density, whose gradient is each member's own."""
    log_prob, grad = target.local(_chosen(drawn, index), x.detach())
    return with_gradient(x, -log_prob.mean(), -grad / len(x))


def _chosen(drawn: Tensor | None, index: Tensor | None) -> Tensor | None:
    """The rows of this step: of all members alike, or by each member's own draw, (M, B)."""
    if drawn is None:
        return index
    return drawn if index is None else drawn[:, index.to(drawn.device)]
