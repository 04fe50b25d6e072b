"""One order and one sign for latents that are known up to both."""

from collections.abc import Mapping

from torch import Tensor


def relabel(draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the draws with timescale (..., P) falling, and loading (..., N, P) of positive sum of cubes."""
    order = draws["timescale"].argsort(-1, descending=True)  # (..., P)
    loading = draws["loading"].take_along_dim(order[..., None, :], -1)
    sign = 1.0 - 2.0 * (loading.pow(3).sum(-2, keepdim=True) < 0).to(loading)
    return {**draws, "timescale": draws["timescale"].take_along_dim(order, -1), "loading": loading * sign}
