"""A posterior that is a product: each part is fitted by itself, and the draws are put together."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.progress import Progress

from inference.base import Fit, Unsupported, check_data, fresh
from ppmodels.base import HasParts, Theta


def in_parts(back_end: Callable[..., Fit], model: Any, data: Any, *, progress_bar: bool = False, **options: Any) -> Fit:
    """Return what `back_end(model, data, **options)` would, part by part: `in_parts(mcmc.fit, model, data)`.

    Chains of a small part mix better and adapt to that part alone, and what does not matter to it is not computed.
    Draws of one part are independent of those of another, so any draw of each makes a draw of all. The seed of a
    part is that of the whole and the part's number; `stats` and the parts' own information are in info["parts"].

    Raises: Unsupported where the model's posterior is no product.
    """
    if not isinstance(model, HasParts):
        raise Unsupported(f"{type(model).__name__} has no parts: its posterior is not known to be a product")
    began, seed = time.perf_counter(), int(options.pop("seed", 0))
    with fresh(model, (data,), seed=seed) as own:
        check_data(own, (data,), {})
        fits: list[Fit] = []
        with Progress(disable=not progress_bar) as bar:
            task = bar.add_task("parts", total=None)
            for i, (program, arguments) in enumerate(own.parts(data)):
                fits.append(back_end(program, *arguments, seed=seed + 7919 * i, **options))
                bar.advance(task)
        draws = own.join([_same_length(fit.draws, fits) for fit in fits])
        info = _report(fits) | {"seed": seed, "seconds": time.perf_counter() - began}
        return Fit(own, (data,), {}, fits[0].method, draws, info=info)


def _same_length(draws: Theta, fits: Sequence[Fit]) -> Theta:
    """The draws that every part has: one stopped by a goal of its own may have fewer."""
    length = min(next(iter(fit.draws.values())).shape[1] for fit in fits)
    return {name: value[:, :length] for name, value in draws.items()}


def _report(fits: Sequence[Fit]) -> dict[str, Any]:
    """What the parts say together."""
    failed = [i for i, fit in enumerate(fits) if not fit.info.get("converged", True)]
    said = f"{len(fits)} independent parts"
    message = f"{said}; part {failed[0]}: {fits[failed[0]].info.get('message')}" if failed else said
    info: dict[str, Any] = {"converged": not failed, "message": message}
    khats = [fit.info["khat"] for fit in fits if "khat" in fit.info]
    info |= {"khat": max(khats)} if khats else {}
    evidence = [fit.info.get("log_evidence", math.nan) for fit in fits]
    info |= {"log_evidence": sum(evidence)} if not math.isnan(sum(evidence)) else {}
    info["parts"] = [{name: v for name, v in fit.info.items() if name not in ("restarts",)} for fit in fits]
    return info
