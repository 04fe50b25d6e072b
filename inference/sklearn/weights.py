"""How often each row counts, as the model or the back end takes it."""

from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from inference.base import Unsupported
from ppmodels.base import HasOptional


def weights(model: Any, method: str, sample_weight: Any, X: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what to add to the data, and to the back end's options, so that rows count as often as they should.

    Raises: Unsupported when neither the model nor the back end weighs rows; ValueError for weights that are none.
    """
    if sample_weight is None:
        return {}, {}
    weight = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
    if method in ("em", "exact") and isinstance(model, HasOptional) and "weight" in model.optional:
        return {"weight": weight}, {}
    if method == "mode":
        return {}, {"weight": weight}
    name = type(model).__name__
    raise Unsupported(f"{method} takes no sample_weight with {name}; method='mode' may, or repeat rows")
