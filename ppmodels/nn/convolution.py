"""Long convolutions by zero-padded Fourier transforms."""

import torch
from torch import Tensor


def causal_convolution(u: Tensor, kernel: Tensor, reverse: Tensor | None = None) -> Tensor:
    r"""Each channel with its own kernel over the past, and with another over the future.

    .. math:: y_t = \sum_{s \le t} K_{t-s} u_s + \sum_{s > t} R_{s-t-1} u_s

    Both directions cost one transform: the reverse kernel sits at the negative lags of the same buffer.

    u: (..., H, L). kernel: K, (H, L). reverse: R, (H, L) or none. Returns: (..., H, L).
    """
    length = u.shape[-1]
    size = transform_length(2 * length)
    if reverse is not None:
        gap = size - kernel.shape[-1] - reverse.shape[-1]
        kernel = torch.cat([kernel, kernel.new_zeros((*kernel.shape[:-1], gap)), reverse.flip(-1)], -1)
    spectrum = torch.fft.rfft(u, size) * torch.fft.rfft(kernel, size)
    return torch.fft.irfft(spectrum, size)[..., :length]


def transform_length(least: int) -> int:
    """The smallest 2^k or 3 2^k from here on: odd lengths and large primes cost several times more."""
    power = 1 << max(least - 1, 0).bit_length()
    return power * 3 // 4 if power >= 4 and power * 3 // 4 >= least else power
