"""Rows that come in pieces: the first is held to the model's program, and later ones to the first."""

from typing import Any

from inference.base import check_data, check_finite
from ppmodels.base import Data, HasCheck


def check_piece(model: Any, data: Data, first: Data | None) -> None:
    """Refuse rows that cannot be; without another run of the program where the first piece has been through one.

    Raises: ValueError that names a row, or an array that is shaped as it was not before.
    """
    plain = data.plain(model)
    if first is None:
        check_data(model, (plain,), {})
        return
    for kind in ("given", "observed"):
        before, now = getattr(first, kind), getattr(data, kind)
        if before.keys() != now.keys():
            raise ValueError(f"the first rows had {', '.join(before) or 'nothing'} {kind}; these have {', '.join(now)}")
        for name, value in now.items():
            if value.shape[1:] != before[name].shape[1:]:
                raise ValueError(f"{name} was {('rows', *before[name].shape[1:])}; it is {('rows', *value.shape[1:])}")
    if isinstance(model, HasCheck):
        model.check(data)
    else:
        check_finite(plain)
