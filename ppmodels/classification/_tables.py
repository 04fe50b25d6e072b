"""What naive Bayes learns from: counts and moments by class, which add over rows and over memberships."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ppmodels.base.moments import Moments
from ppmodels.classification._columns import Columns, Kind

SUMS = ("count", "ones", "seen", "words", "moments")
CHUNK = 2**18  # numbers of the largest temporary


@dataclass(frozen=True)
class Tables:
    """Sums by class, in float64; those of two sets of rows add, and a number multiplies their weight.

    count: rows (C,). ones, seen: ones and values of Bernoulli columns, (C, B). words: (C, V). moments: of real
    columns. levels: rows at each level of a categorical column, (C, L), by column. dtype: of x.
    """

    count: Tensor
    ones: Tensor
    seen: Tensor
    words: Tensor
    moments: Moments
    levels: dict[int, Tensor]
    dtype: torch.dtype = torch.float64

    def __add__(self, other: "Tables") -> "Tables":
        levels = {column: table + other.levels[column] for column, table in self.levels.items()}
        sums = {name: getattr(self, name) + getattr(other, name) for name in SUMS}
        return replace(self, **sums, levels=levels)

    def __mul__(self, factor: float) -> "Tables":
        sums = {name: getattr(self, name) * factor for name in SUMS}
        return replace(self, **sums, levels={column: table * factor for column, table in self.levels.items()})


def tables(columns: Columns, x: Tensor, q: Tensor) -> Tables:
    """Return the sums of rows x (N, D) whose memberships are q (N, C), a chunk at a time."""
    parts = [_of_chunk(columns, rows, member.double()) for rows, member in _chunks(x, q)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return replace(total, dtype=x.dtype)


def empty(columns: Columns, classes: int, dtype: torch.dtype | None = None) -> Tables:
    """Return the sums of no rows: the program's prior, so nothing here may ask for a value while it is traced."""

    def zeros(kind: Kind) -> Tensor:
        return torch.zeros(classes, columns.kinds.count(kind), dtype=torch.float64)

    moments = Moments(*(zeros("gaussian") for _ in range(3)))
    levels = {column: torch.zeros(classes, size, dtype=torch.float64) for column, size in columns.tables.items()}
    count, dtype = torch.zeros(classes, dtype=torch.float64), dtype or torch.get_default_dtype()
    ones, seen, words = zeros("bernoulli"), zeros("bernoulli"), zeros("multinomial")
    return Tables(count, ones, seen, words, moments, levels, dtype)


def memberships(y: Tensor, classes: int, weight: Tensor | None = None) -> Tensor:
    """Return one-hot rows, (N, C), each as heavy as its weight; a row of unknown class has none."""
    q = (y[:, None] == torch.arange(classes, device=y.device)).double()
    return q if weight is None else q * weight[:, None].double()


def _chunks(x: Tensor, q: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, CHUNK // max(1, x.shape[1]))
    return zip(x.split(size), q.split(size), strict=True) if len(x) else iter([(x, q)])


def _of_chunk(columns: Columns, x: Tensor, q: Tensor) -> Tables:
    """The sums of a chunk, each a product of memberships and values."""
    binary, words = columns.take(x, "bernoulli").double(), columns.take(x, "multinomial").double()
    levels = {}
    for column, size in columns.tables.items():
        value = x[:, column]
        hot = (value[:, None] == torch.arange(size, device=x.device)).double()  # (n, L); none where missing
        levels[column] = q.mT @ hot
    seen = q.mT @ (~binary.isnan()).double()
    moments = _moments(columns.take(x, "gaussian").double(), q)
    return Tables(q.sum(0), q.mT @ binary.nan_to_num(0.0), seen, q.mT @ words, moments, levels)


def _moments(x: Tensor, q: Tensor) -> Moments:
    """Moments of real columns by class, (C, G): squares are taken about the means of the chunk's classes."""
    there, mass = ~x.isnan(), q.sum(1)
    whole = bool(there.all())
    x = x if whole else torch.where(there, x, 0.0)
    count = q.sum(0)[:, None].expand(-1, x.shape[1]) if whole else q.mT @ there.double()
    origin = x.sum(0) / there.sum(0).clamp(min=1)  # (G,)
    gap = x - origin if whole else (x - origin) * there
    top, label = q.max(1) if q.numel() else (mass, mass.long())
    if not torch.equal(top, mass):  # shares: squares about the chunk's mean
        shift = torch.where(count > 0, q.mT @ gap / count, 0.0)  # (C, G)
        scatter = (q.mT @ gap.square() - count * shift.square()).clamp(min=0)
        return Moments(count, origin + shift, scatter)
    light = bool((mass == 1).all())  # each row is of one class: about that class's mean, so that no digits are lost
    shift = torch.zeros_like(count).index_add(0, label, gap if light else gap * mass[:, None])
    shift = torch.where(count > 0, shift / count, 0.0)
    own = gap.sub_(shift[label]) if whole else (gap - shift[label]) * there
    own = own.square_() if light else own.square_().mul_(mass[:, None])
    return Moments(count, origin + shift, torch.zeros_like(count).index_add(0, label, own))
