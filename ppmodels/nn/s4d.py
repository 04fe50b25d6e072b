"""S4D: a diagonal state space a channel, learned as a long convolution and run as a recurrence."""

import math

import torch
from torch import Tensor, nn

from ppmodels.nn.discretise import diagonal
from ppmodels.nn.nplr import conjugate_half, nplr
from ppmodels.nn.recurrence import Recurrence
from ppmodels.nn.vandermonde import final_state, vandermonde

INITIALISATIONS = ("lin", "inv", "legs", "legt", "fout", "real")


class S4D(nn.Module):
    r"""H single-input single-output systems, :math:`\dot x = A x + u,\ y = 2\mathrm{Re}\, C x`, A diagonal.

    Learned: log_dt (H,); log_decay (H, M) and frequency (H, M), A = -exp(log_decay) + i frequency;
             readout (H, M, 2), C as real and imaginary part. M = N / 2 conjugate pairs, or N when A is real.
    Source:  Gu, Gupta, Goel and Ré (2022), arXiv:2206.11893, sections 3 and 4.

    channels: H. states: N, real ones, even. init: lin, inv, legs, legt, fout or real.
    method: `zoh` or `bilinear`. dt: the range of steps, log-uniform over the channels.
    """

    slow = ("log_dt", "log_decay", "frequency")

    def __init__(
        self,
        channels: int,
        states: int = 64,
        init: str = "lin",
        method: str = "zoh",
        dt: tuple[float, float] = (1e-3, 1e-1),
    ):
        super().__init__()
        if method not in ("zoh", "bilinear"):
            raise ValueError(f"no discretisation {method!r}; there are: zoh, bilinear")
        start = spectrum(init, states)  # (M,)
        self.channels, self.method = channels, method
        self.log_dt = nn.Parameter(uniform_log_dt(channels, dt))
        real = start.real.clamp(max=-1e-3) if start.is_complex() else start
        self.log_decay = nn.Parameter((-real).log().to(torch.get_default_dtype()).repeat(channels, 1))
        if start.is_complex():
            self.frequency = nn.Parameter(start.imag.to(torch.get_default_dtype()).repeat(channels, 1))
            self.readout = nn.Parameter(torch.randn(channels, len(start), 2) / 2**0.5)
        else:
            self.register_parameter("frequency", None)
            self.readout = nn.Parameter(torch.randn(channels, len(start)))

    def kernel(self, length: int, rate: float = 1.0) -> Tensor:
        """Impulse response, (H, L). rate: 2 for a signal sampled half as often."""
        exponent, gain, readout = self._system(rate)
        return vandermonde(self._rounded(readout * gain), exponent, length)

    def recurrence(self, rate: float = 1.0) -> Recurrence:
        """The same system as a step from one sample to the next."""
        exponent, gain, readout = self._system(rate)
        both = 2 * readout if readout.is_complex() else readout  # of each conjugate pair
        return Recurrence(*(self._rounded(x) for x in (exponent.exp(), gain, both)))

    def free_response(self, state: Tensor, length: int, rate: float = 1.0) -> Tensor:
        """What a state (B, H, M) alone would still say over the next samples, (B, H, L)."""
        exponent, _, readout = self._system(rate)
        return vandermonde(self._rounded(readout * exponent.exp()) * state, exponent, length)

    def absorb(self, u: Tensor, state: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """The state after the signal u (B, H, L), (B, H, M), without a loop over its samples."""
        exponent, gain, _ = self._system(rate)
        after = self._rounded(gain) * final_state(u, exponent)
        return after if state is None else after + self._rounded((exponent * u.shape[-1]).exp()) * state

    def _system(self, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithm of A bar, B bar and C, each (H, M) in double precision: phases grow with the length."""
        decay = -self.log_decay.double().exp()
        a = decay if self.frequency is None else torch.complex(decay, self.frequency.double())
        exponent, gain = diagonal(a, rate * self.log_dt.double().exp()[:, None], self.method)
        readout = self.readout.double()
        if self.frequency is not None:
            return exponent, gain, torch.view_as_complex(readout)
        if not exponent.is_complex():
            return exponent, gain, readout
        # The bilinear rule may turn a real decay negative, whose logarithm is complex; a real state is its
        # own conjugate, so each of the pair carries half the weight.
        return exponent, torch.complex(gain, 0 * gain), torch.complex(readout / 2, 0 * readout)

    def _rounded(self, x: Tensor) -> Tensor:
        dtype = self.readout.dtype
        return x.to(dtype.to_complex() if x.is_complex() else dtype)


def spectrum(init: str, states: int) -> Tensor:
    """Diagonal of A at the start: N / 2 of the conjugate pairs, or N real ones for `real`.

    Raises: ValueError for an unknown name, or an odd or missing number of states.
    """
    if init not in INITIALISATIONS:
        raise ValueError(f"no initialisation {init!r}; there are: {', '.join(INITIALISATIONS)}")
    if states < 1 or (states % 2 and init != "real"):
        raise ValueError(f"{init} needs an even, positive number of states; got {states}")
    if init == "real":
        return -torch.arange(1.0, states + 1, dtype=torch.float64)
    if init in ("legs", "legt", "fout"):
        return conjugate_half(nplr(init, states)).eigenvalues
    n = torch.arange(states // 2, dtype=torch.float64)
    lin = math.pi * n
    inv = states / math.pi * (states / (2 * n + 1) - 1)
    return torch.complex(torch.full_like(n, -0.5), lin if init == "lin" else inv)


def uniform_log_dt(channels: int, dt: tuple[float, float]) -> Tensor:
    """Log-uniform steps between two bounds, (H,).

    Raises: ValueError when the bounds are not positive and rising.
    """
    low, high = dt
    if not 0 < low <= high:
        raise ValueError(f"dt must be a positive, rising range; got {dt}")
    return torch.rand(channels) * (math.log(high) - math.log(low)) + math.log(low)
