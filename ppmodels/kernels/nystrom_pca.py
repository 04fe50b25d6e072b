"""Kernel principal components of more rows than fit into memory: landmarks, and one pass over blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ppmodels.kernels.features import NystromFeatures
from ppmodels.kernels.functions import Kernel, check_points

BLOCK = 8192


@dataclass(frozen=True)
class NystromPCA:
    """Fitted components of Nyström features; exact when every row is a landmark.

    directions: of the components among the features, (R, Q). eigenvalues: N times the variance, (Q,).
    total: of all variances, times N. mean: of the features, (R,). rows: N.
    """

    features: NystromFeatures
    directions: Tensor
    eigenvalues: Tensor
    total: float
    mean: Tensor
    rows: int

    @classmethod
    def fit(
        cls,
        x: Tensor | Iterable[Tensor],
        kernel: Kernel,
        components: int,
        landmarks: int | Tensor = 500,
        seed: int = 0,
    ) -> "NystromPCA":
        """Return the components of rows x (N, D), or of blocks of rows (n, D) that are read once.

        landmarks: how many to draw, for which x must be a tensor; or the landmarks themselves, (M, D).
        Raises: ValueError when there are too few rows or directions.
        """
        if isinstance(landmarks, int):
            if not isinstance(x, Tensor):
                raise ValueError("landmarks can only be drawn from a tensor; give them with a stream of blocks")
            if not components <= landmarks <= len(x):
                raise ValueError(f"landmarks must be {components} to {len(x)}; there are {landmarks}")
            landmarks = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:landmarks]]
        features = NystromFeatures.fit(landmarks, kernel)
        rows, mean, scatter = _moments(features, x.split(BLOCK) if isinstance(x, Tensor) else x)
        values, vectors = torch.linalg.eigh(scatter)
        values, vectors = values.flip(0), vectors.flip(1)
        if components < 1 or (values > 1e-12 * values[0]).sum() < components:
            raise ValueError(f"there are not {components} components in these rows and landmarks")
        kept = vectors[:, :components].to(landmarks)
        total, values = float(values.clamp(min=0).sum()), values[:components].to(landmarks)
        return cls(features, kept, values, total, mean.to(landmarks), rows)

    def transform(self, x: Tensor) -> Tensor:
        """Return the scores of x (n, D), (n, Q)."""
        return torch.cat(list(self.transform_blocks(x.split(BLOCK))))

    def transform_blocks(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the scores of one block after the other."""
        together = self.features.root @ self.directions  # (M, Q): the landmarks' weights
        offset = self.mean @ self.directions
        for rows in blocks:
            yield self.features.kernel(rows.to(together), self.features.landmarks) @ together - offset

    def explained(self) -> Tensor:
        """Return the share of the features' variance along each component, (Q,)."""
        return self.eigenvalues / self.total


def _moments(features: NystromFeatures, blocks: Iterable[Tensor]) -> tuple[int, Tensor, Tensor]:
    """Rows, mean (R,) and scatter about it (R, R) of the features, in float64 and in one pass."""
    size = features.root.shape[1]
    rows, mean = 0, torch.zeros(size, dtype=torch.float64)
    scatter = torch.zeros(size, size, dtype=torch.float64)
    for block in blocks:
        part = features(check_points(block).to(features.landmarks))
        here = part.mean(0)
        part = part - here
        gap, number = here.double() - mean, len(part)
        scatter += (part.mT @ part).double() + gap[:, None] * gap * (rows * number / (rows + number))
        mean, rows = mean + gap * (number / (rows + number)), rows + number
    if rows < 2:
        raise ValueError("at least two rows are needed")
    return rows, mean, scatter
