"""S4: a diagonal-plus-low-rank state space a channel, started at a HiPPO matrix."""

import torch
from torch import Tensor, nn

from ppmodels.nn.discretise import bilinear
from ppmodels.nn.dplr import dplr_kernel, real_form, truncate, untruncate
from ppmodels.nn.nplr import conjugate_half, nplr
from ppmodels.nn.recurrence import LowRankRecurrence, project
from ppmodels.nn.s4d import uniform_log_dt
from ppmodels.nn.vandermonde import conjugate


class S4(nn.Module):
    r"""H single-input single-output systems, :math:`\dot x = (\Lambda - P Q^*) x + B u,\ y = C x`, bilinear.

    With Q tied to P the system is stable whatever is learned. `readout` is C, and weights mean the same at
    every length, for O(N^3 log L) beside the kernel's O(N L). Given a `length`, it is the published
    C (I - A_bar^length), which costs nothing at that length and a conversion at every other.

    Learned: log_dt (H,); log_decay (H, M), frequency (H, M); low_rank (H, R, M, 2), input (H, M, 2) and
             readout (H, M, 2) as real and imaginary parts; left (H, R, M, 2) is Q unless tied. M = N / 2.
    Source:  Gu, Goel and Ré (2022), arXiv:2111.00396, section 3; tied: Goel, Gu, Donahue and Ré (2022),
             arXiv:2202.09729, section 4.

    channels: H. states: N, even. init: legs, legt or fout. dt: range of steps, log-uniform over the channels.
    """

    slow = ("log_dt", "log_decay", "frequency", "low_rank", "left", "input")

    def __init__(
        self,
        channels: int,
        states: int = 64,
        init: str = "legs",
        dt: tuple[float, float] = (1e-3, 1e-1),
        tied: bool = True,
        length: int | None = None,
    ):
        super().__init__()
        form = conjugate_half(nplr(init, states))
        self.channels, self.length = channels, length
        self.log_dt = nn.Parameter(uniform_log_dt(channels, dt))
        decay = (-form.eigenvalues.real).clamp(min=1e-2).log().to(torch.get_default_dtype())
        self.log_decay = nn.Parameter(decay.repeat(channels, 1))
        self.frequency = nn.Parameter(form.eigenvalues.imag.to(torch.get_default_dtype()).repeat(channels, 1))
        low_rank = torch.view_as_real(form.low_rank).to(torch.get_default_dtype())
        self.low_rank = nn.Parameter(low_rank.repeat(channels, 1, 1, 1))
        self.register_parameter("left", None if tied else nn.Parameter(low_rank.repeat(channels, 1, 1, 1)))
        self.input = nn.Parameter(torch.view_as_real(form.input).to(torch.get_default_dtype()).repeat(channels, 1, 1))
        self.readout = nn.Parameter(torch.randn(channels, states // 2, 2) / 2**0.5)

    def kernel(self, length: int, rate: float = 1.0) -> Tensor:
        """Impulse response, (H, L). rate: 2 for a signal sampled half as often."""
        eigenvalues, p, q, b, readout = self.system()
        step = rate * self.log_dt.exp()
        c_tilde = readout if length == self.length and rate == 1.0 else self._truncated(length, rate)
        return dplr_kernel(eigenvalues, p, q, b, c_tilde, step, length)

    def recurrence(self, rate: float = 1.0) -> LowRankRecurrence:
        r"""The same system as a step from one sample to the next, again diagonal plus low rank.

        .. math:: \bar A = D (2/\Delta + \Lambda) - DP\,G\,Q^*(I + D(2/\Delta + \Lambda))

        with :math:`D = (2/\Delta - \Lambda)^{-1}` and :math:`G = (I + Q^* D P)^{-1}`.

        Raises: ValueError when Q, not tied to P, was learned so that a state grows without bound.
        """
        self._refuse_growth(rate)
        eigenvalues, p, q, b, readout = self.system()
        c = readout if self.length is None else self._truncated(None)
        twice = 2 / (rate * self.log_dt.exp())[:, None]
        inverse = 1 / (twice - eigenvalues)  # D, (H, M)
        decay = inverse * (twice + eigenvalues)
        column = inverse[:, None] * p  # D P, (H, R, M)
        rows = conjugate(q)
        gram = 2 * project(rows[:, :, None], column[:, None])  # Q* D P, (H, R, R)
        gram = torch.linalg.inv(gram + torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device))
        driven = 2 * inverse * b
        fed = (gram @ (2 * project(rows, driven[:, None]))[..., None]).to(p.dtype)  # (H, R, 1)
        row = 2 * gram.to(p.dtype) @ (rows * (1 + decay[:, None]))
        return LowRankRecurrence.of(decay, driven - (column * fed).sum(-2), 2 * c, column, row)

    def system(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Lambda (H, M), P (H, R, M), Q (H, R, M), B (H, M) and the readout (H, M), complex."""
        eigenvalues = torch.complex(-self.log_decay.exp(), self.frequency)
        p = torch.view_as_complex(self.low_rank)
        q = torch.view_as_complex(self.left) if isinstance(self.left, Tensor) else p
        return eigenvalues, p, q, torch.view_as_complex(self.input), torch.view_as_complex(self.readout)

    def _refuse_growth(self, rate: float) -> None:
        if self.left is None:
            return  # the real part of Lambda - P P* is negative: bilinear steps shrink
        a, b, _ = real_form(*(x.detach().to(torch.complex128) for x in self.system()))
        step = rate * self.log_dt.detach().double().exp()
        growth = torch.linalg.eigvals(bilinear(a, b, step)[0]).abs().amax(-1)  # (H,)
        worst = int(growth.argmax())
        if not growth[worst] < 1 + 1e-6:
            told = f"channel {worst} multiplies its state by {float(growth[worst]):.6g} a step"
            raise ValueError(f"{told}, and would blow up: learn with tied=True")

    def _truncated(self, length: int | None, rate: float = 1.0) -> Tensor:
        """C (I - A_bar^length), or C itself for None, (H, M).

        A_bar^L is near I when the sequence is short: I - A_bar^L cancels, so it is taken in double precision.
        """
        a, b, c = real_form(*(x.to(torch.complex128) for x in self.system()))
        step = self.log_dt.double().exp()
        if self.length is not None:
            c = untruncate(c, bilinear(a, b, step)[0], self.length)
        if length is not None:
            c = truncate(c, bilinear(a, b, rate * step)[0], length)
        real, imaginary = (c / 2).chunk(2, -1)
        return torch.complex(real, -imaginary).to(torch.view_as_complex(self.readout).dtype)
