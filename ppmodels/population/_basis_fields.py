"""What the fields of a basis must be."""

import math
from typing import Any


def check_fields(basis: Any) -> None:
    """Raise a ValueError that names a field and what it may be."""
    if basis.functions < 1 or not 0 < basis.window < math.inf:
        said = f"{basis.functions} functions over {basis.window} s"
        raise ValueError(f"a basis needs at least one function and a positive window; got {said}")
    if not getattr(basis, "warp", 1.0) > 0:
        raise ValueError(f"warp must be positive; it is {basis.warp}")
    if not 1 <= getattr(basis, "order", 1) <= basis.functions:
        raise ValueError(f"order must be between 1 and functions = {basis.functions}; it is {basis.order}")
