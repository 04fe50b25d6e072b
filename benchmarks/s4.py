"""State spaces: the kernel beside the published form, the layer beside its transforms, the step, the cost laws."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks._clock import milliseconds
from benchmarks._record import recorded
from ppmodels.nn.convolution import causal_convolution
from ppmodels.nn.dplr import dplr_kernel
from ppmodels.nn.s4 import S4
from ppmodels.nn.s4d import S4D
from ppmodels.nn.ssm_layer import SSMLayer
from ppmodels.nn.vandermonde import vandermonde

CHANNELS, STATES, BATCH = 64, 64, 4
TARGETS = {1024: 15, 4096: 30, 16384: 50, 65536: 100}


def compare(out: Path | None = None) -> None:
    """Print the tables; one thread, least processor time of several runs, in milliseconds unless said.

    Args:
        out: a file for the tables as text.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with recorded(out, "torch"):
        kernels()
        layers()
        steps()
        low_rank()


def kernels() -> None:
    """Forward and backward of the diagonal kernel; the error is against the published form in float64."""
    print(f"S4D kernel, H = {CHANNELS}, N = {STATES}, float32, forward + backward")
    print(f"{'length':>8} {'published':>10} {'ours':>8} {'ratio':>7} {'target':>7} {'error':>9} {'its error':>10}")
    ssm = S4D(CHANNELS, STATES)
    exponents, gain, readout = (x.detach() for x in ssm._system(1.0))
    weights = (readout * gain).to(torch.complex64)
    for length, target in TARGETS.items():
        up = torch.randn(CHANNELS, length)

        def run(rule: Callable[..., Tensor], z: Tensor, length: int = length, up: Tensor = up) -> None:
            w, z = weights.clone().requires_grad_(), z.clone().requires_grad_()
            rule(w, z, length).backward(up)

        rounded = exponents.to(torch.complex64)  # the published form works in single precision throughout
        theirs = milliseconds(partial(run, published, rounded), 3 if length < 10000 else 1)
        ours = milliseconds(partial(run, vandermonde, exponents), 10)
        with torch.no_grad():
            exact = torch.cat([published(weights[:8].to(z), z, length) for z in [exponents[:8]]])
            errors = [
                ((rule(weights[:8], z[:8], length) - exact).abs().max() / exact.abs().max()).item()
                for rule, z in ((vandermonde, exponents), (published, rounded))
            ]
        ratio = theirs / ours
        print(
            f"{length:>8} {theirs:>10.1f} {ours:>8.2f} {ratio:>7.1f} {target:>7} {errors[0]:>9.1e} {errors[1]:>10.1e}"
        )


def layers() -> None:
    """A whole layer beside the transforms that it cannot do without, forward only."""
    print(f"\nS4D layer, batch {BATCH}, H = {CHANNELS}, forward")
    print(f"{'length':>8} {'layer':>8} {'kernel':>8} {'transforms':>11} {'mixing':>8} {'layer / transforms':>19}")
    layer = SSMLayer(CHANNELS, states=STATES).eval()
    for length in TARGETS:
        u = torch.randn(BATCH, length, CHANNELS)
        with torch.no_grad():
            kernel = layer.ssm.kernel(length)
            whole = milliseconds(lambda: layer(u), 5)  # noqa: B023
            own = milliseconds(lambda: layer.ssm.kernel(length), 5)  # noqa: B023
            transforms = milliseconds(lambda: causal_convolution(u.mT, kernel), 5)  # noqa: B023
            mixing = milliseconds(lambda: layer._finish(u, u), 5)  # noqa: B023
        print(f"{length:>8} {whole:>8.2f} {own:>8.2f} {transforms:>11.2f} {mixing:>8.2f} {whole / transforms:>19.2f}")


def steps() -> None:
    """Microseconds a token in generation, batch 1; the recurrence alone and the layer with its mixing."""
    print(f"\nRecurrent step, batch 1, H = {CHANNELS}, N = {STATES}: µs a token (target 50)")
    for name in ("s4d", "s4"):
        layer = SSMLayer(CHANNELS, name, states=STATES).eval()
        u = torch.randn(1, CHANNELS)
        with torch.inference_mode():
            state = layer.default_state(1)
            alone = milliseconds(lambda: repeat(state.recurrence.step, u, state.hidden), 5)  # noqa: B023
            whole = milliseconds(lambda: repeat(layer.step, u, state), 5)  # noqa: B023
        print(f"{name:>8}: recurrence {alone:.1f}, whole layer {whole:.1f}")


def low_rank() -> None:
    """The kernel of S4 proper: Cauchy products, forward and backward, over states and over length."""
    print("\nS4 (DPLR) kernel, H = 8: Cauchy products, forward + backward (and the readout's truncation, forward)")
    print(f"{'length':>8} " + " ".join(f"{f'N = {n}':>15}" for n in (32, 64, 128)))
    for length in TARGETS:
        row = []
        for states in (32, 64, 128):
            ssm = S4(8, states)

            def run(ssm: S4 = ssm, length: int = length) -> None:
                dplr_kernel(*ssm.system(), ssm.log_dt.exp(), length).sum().backward()

            with torch.no_grad():
                extra = milliseconds(lambda: ssm._truncated(length), 3)  # noqa: B023
            row.append(f"{milliseconds(run, 3):>8.1f} ({extra:4.1f})")
        print(f"{length:>8} " + " ".join(row))


def published(weights: Tensor, exponents: Tensor, length: int) -> Tensor:
    """Gu, Gupta, Goel and Ré (2022), section 3.2: the Vandermonde matrix (H, N, L), and its product."""
    times = torch.arange(length, dtype=exponents.real.dtype)
    return 2 * torch.einsum("hn,hnl->hl", weights, torch.exp(exponents[..., None] * times)).real


def repeat(step: Callable[..., tuple[Tensor, object]], u: Tensor, state: object) -> None:
    """A thousand steps: milliseconds of this are microseconds of one."""
    for _ in range(1000):
        _, state = step(u, state)
