"""The data whose rows can be taken apart, and the density of some of them."""

from collections.abc import Mapping
from typing import Any

from inference.base import Unsupported, check_data
from inference.density import Density
from ppmodels.base import Data, Model


def rows_of(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Data:
    """Return the data whose rows can be taken apart.

    Raises: Unsupported for a plain program.
    """
    check_data(model, args, kwargs)
    if not isinstance(model, Model):
        raise Unsupported("batch_size takes rows of a `Data`; a plain program is fitted to all its rows at once")
    return args[0]


def of_rows(program: Any, data: Data, jacobian: bool) -> Density:
    """The density of some rows; Unsupported where there is none."""
    try:
        density = Density.of(program, (data,), {}, jacobian=jacobian)
    except ValueError as error:
        if "minibatch" not in str(error):
            raise
        raise Unsupported(str(error).splitlines()[0]) from None  # what a model says whose rows hang together
    for site in density.layout.sites:
        if "rows" in site.dims:
            raise Unsupported(f"site {site.name!r} has a value a row, so all rows are needed at once")
    return density
