"""Series filtered by basis functions: what happened a lag ago, without a matrix of lags."""

import torch
from torch import Tensor

CHUNK = 2**22  # numbers that one pass through the frequencies holds


def lagged(series: Tensor, basis: Tensor) -> Tensor:
    r"""Return :math:`\phi_{tnk} = \sum_w b_{wk} s_{t + W - 1 - w, n}`, (..., T, N, K), by Fourier transforms.

    series: (..., T + W - 1, N), with the W - 1 bins before the first result; basis: (W, K), its row 0 the latest bin.
    For what is caused by past bins alone, leave out the last bin.
    """
    *batch, length, columns = series.shape
    width, functions = basis.shape
    bins = length - width + 1
    basis = basis.to(series)
    if width == 1:
        return series[..., None] * basis[0]
    if not series.numel():
        return series.new_zeros(*batch, bins, columns, functions)
    size = _fast(length)
    transformed = torch.fft.rfft(basis.mT, size)  # (K, F)
    flat = series.movedim(-2, -1).reshape(-1, length)  # (B N, length)
    parts = []
    for part in flat.split(max(1, CHUNK // (size * functions))):
        spectrum = torch.fft.rfft(part, size)[:, None] * transformed
        parts.append(torch.fft.irfft(spectrum, size)[..., width - 1 : length].mT)  # (., T, K)
    whole = torch.cat(parts) if parts else flat.new_zeros(0, bins, functions)
    return whole.reshape(*batch, columns, bins, functions).movedim(-3, -2)


def direct(series: Tensor, basis: Tensor) -> Tensor:
    """Return the same by the definition, lag by lag: the reference in tests, and for a bin at a time."""
    width = len(basis)
    windows = series.unfold(-2, width, 1).flip(-1)  # (..., T, N, W)
    return windows @ basis.to(series)


def _fast(length: int) -> int:
    """The next length whose transform is quick: 2^a 3^b 5^c."""
    best = 1 << (length - 1).bit_length()
    for five in (1, 5, 25):
        for three in (1, 3, 9, 27):
            rest = -(-length // (five * three))
            best = min(best, five * three << (rest - 1).bit_length())
    return best
