"""Independent Gaussian rows, told apart by the order of their first coordinates."""

import math
from typing import Any

import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints


def gaussian_rows(loc: Tensor, scale: Tensor, ordered: bool) -> Any:
    """Return Normal(loc, scale) as one event, its rows in order or not. loc (K, D), the same in all rows."""
    return OrderedRows(len(loc), loc[0], scale) if ordered else Normal(loc, scale).to_event(2)


class OrderedRows(TorchDistribution):
    r"""K rows of Normal(loc, scale) each, given that their first coordinates increase.

    .. math:: p(\mu) = K! \prod_{kd} N(\mu_{kd}; m_d, b_d^2) \; [\mu_{11} < \mu_{21} < \dots < \mu_{K1}]

    K! because all orders of exchangeable rows are equally likely. A draw is K independent rows, sorted.
    loc, scale: of a row, (D,). Event: (K, D).
    """

    arg_constraints: Any = {
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }

    def __init__(self, rows: int, loc: Tensor, scale: Tensor, shape: Any = ()) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(torch.Size(shape), torch.Size((rows, len(loc))))

    @property
    def support(self) -> Any:
        return increasing_rows

    def expand(self, batch_shape: Any, _instance: Any = None) -> "OrderedRows":
        return OrderedRows(self.event_shape[0], self.loc, self.scale, batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size((*sample_shape, *self.batch_shape, *self.event_shape))
        rows = self.loc + self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        order = rows[..., 0].argsort(-1)  # (..., K)
        return rows.take_along_dim(order[..., None], -2)

    def log_prob(self, value: Tensor) -> Tensor:
        independent = Normal(self.loc, self.scale, validate_args=False).log_prob(value).sum((-2, -1))
        return independent + math.lgamma(self.event_shape[0] + 1)


class _IncreasingRows(constraints.Constraint):
    """Real (K, D) whose first column increases from row to row."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return (value[..., 1:, 0] > value[..., :-1, 0]).all(-1)


increasing_rows = _IncreasingRows()


class _Ascend(Transform):
    """Real (K, D) to increasing rows: the first column is a first value and the logarithms of the gaps."""

    domain, codomain = constraints.independent(constraints.real, 2), increasing_rows
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        first = torch.cat([x[..., :1, 0], x[..., 1:, 0].exp()], -1).cumsum(-1)  # (..., K)
        return torch.cat([first[..., None], x[..., 1:]], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        first = torch.cat([y[..., :1, 0], y[..., 0].diff(dim=-1).log()], -1)  # (..., K)
        return torch.cat([first[..., None], y[..., 1:]], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x[..., 1:, 0].sum(-1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ascend)

    __hash__ = Transform.__hash__


@biject_to.register(_IncreasingRows)
def _to_increasing_rows(_: _IncreasingRows) -> Transform:
    return _Ascend()
