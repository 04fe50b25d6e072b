"""Factorisations written out over chains against LAPACK, one matrix at a time."""

import pytest
import torch

from inference.density.small_matrices import cholesky, solve_triangular

C = 4


def positive_definite(*shape):
    a = torch.randn(*shape, shape[-1], C, dtype=torch.float64, generator=torch.Generator().manual_seed(shape[-1]))
    first = a.movedim(-1, 0)
    return (first @ first.mT + torch.eye(shape[-1], dtype=torch.float64)).movedim(0, -1)


@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (12,), (3, 4), (2, 1, 3)])
def test_cholesky(shape):
    a = positive_definite(*shape)
    torch.testing.assert_close(cholesky(a), torch.linalg.cholesky(a.movedim(-1, 0)).movedim(0, -1))


def test_only_the_chain_that_fails_is_nan():
    a = positive_definite(3)
    a[2, 2, 1] = -1.0
    factor = cholesky(a)
    assert factor[..., 1].isnan().any()
    assert factor[..., [0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("shape", [(1,), (4,), (12,), (2, 3)])
def test_solve_triangular(shape, upper):
    a = cholesky(positive_definite(*shape))
    a = a.transpose(-3, -2) if upper else a
    b = torch.randn(*shape, 2, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    truth = torch.linalg.solve_triangular(a.movedim(-1, 0), b.movedim(-1, 0), upper=upper).movedim(0, -1)
    torch.testing.assert_close(solve_triangular(a, b, upper), truth)
