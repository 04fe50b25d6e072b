"""What chains of a network are compared by: not its weights, of which many mean the same, but what it predicts."""

import torch
import xarray as xr

from inference.base import Fit, Unsupported
from inference.outcomes import outcomes
from ppmodels.base import HasNetwork

ROWS = 200  # whose predictions are looked at, spread over all


def judged(fit: Fit, posterior: xr.Dataset) -> xr.Dataset:
    """Return the draws by which a fit is judged: of a network, predicted means in place of the weights.

    Source: Izmailov et al. (2021), ICML, section 4.2, for R-hat in function space.
    """
    if not isinstance(fit.model, HasNetwork):
        return posterior
    weights = [name for name, _ in fit.model.module.named_parameters() if name in posterior]
    found = posterior.drop_vars(weights)
    data = fit.data
    assert data is not None
    rows = torch.linspace(0, data.rows - 1, min(ROWS, data.rows)).round().long()
    try:
        seen = outcomes(fit, type(data)(len(rows), {name: value[rows] for name, value in data.given.items()}))
    except Unsupported:
        return found
    name = f"predicted {seen.site}"
    dims = ("chain", "draw", f"{name} row", f"{name} class")[: seen.mean.ndim]
    advice = {"apart": "average over more chains, num_chains, since each mode predicts otherwise"}
    predicted = xr.DataArray(seen.mean.numpy(), dims=dims, coords={dims[2]: rows.numpy()}, attrs=advice)
    return found.assign({name: predicted.assign_coords(chain=found["chain"], draw=found["draw"])})
