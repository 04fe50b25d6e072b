# %% [markdown]
# # What does length cost?
#
# A state space reads a sequence by one long convolution: nearly linear in its length, as long as the transforms stay in
# the cache. Attention lets every place see every other: quadratic. When both write, token after token, the state space
# pays the same for each; attention with a cache pays for what has been said, and without one it reads everything again.
# Measured here, on one thread.

# %%
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from rich.console import Console

from ppmodels.nn.attention import MultiHeadAttention
from ppmodels.nn.ssm_layer import SSMLayer

WIDTH, STATES = 64, 64
Curve = dict[int, float]  # seconds by length


@torch.no_grad()
def main(folder: str | Path = "runs/cost_laws", longest: int = 65536) -> dict[str, float]:
    """Time both over length and over what was said, print and draw; return the growth's exponents."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    lengths = [2**k for k in range(8, int(math.log2(longest)) + 1)]
    layers = {"S4": SSMLayer(WIDTH, "s4", states=STATES), "S4D": SSMLayer(WIDTH, states=STATES)}
    attention = MultiHeadAttention(WIDTH, 1)
    readers = {name: lambda x, layer=layer: layer.eval()(x) for name, layer in layers.items()}
    readers["attention"] = lambda x: attention(x, causal=True)
    most = {"attention": longest // 4}  # at the longest it would take minutes
    reading = {
        name: {n: read_once(reader, n) for n in lengths if n <= most.get(name, longest)}
        for name, reader in readers.items()
    }
    lengths = list(reading["attention"])
    writing = {
        "S4D": {n: step_after(layers["S4D"], n) for n in lengths},
        "attention with a cache": {n: cached_after(attention, n) for n in lengths},
        "attention without": {n: read_once(readers["attention"], n) for n in lengths[:-2]},
    }
    slopes = {name: slope(curve) for name, curve in reading.items()}
    for name, value in slopes.items():
        length, seconds = max(reading[name].items())
        Console().print(f"reading {length} places, {name}: {seconds:.3f} s, grows as L^{value:.2f}")
    crossing = next((n for n in lengths if reading["attention"][n] > reading["S4D"][n]), None)
    Console().print(f"attention costs more than S4D from {crossing} places on")
    draw(reading, writing, slopes).savefig(Path(folder) / "cost_laws.png", dpi=150)
    return slopes


def read_once(reader: Callable[[Any], Any], length: int) -> float:
    """Seconds to read a whole sequence, batch 1."""
    x = torch.randn(1, length, WIDTH)
    return least(lambda: reader(x), 3 if length < 4096 else 2)


def step_after(layer: SSMLayer, length: int) -> float:
    """Seconds of one more token, after so many."""
    _, state = layer.prefill(torch.randn(1, length, WIDTH), layer.default_state(1))
    u = torch.randn(1, WIDTH)
    return least(lambda: [layer.step(u, state) for _ in range(50)], 3) / 50


def cached_after(attention: MultiHeadAttention, length: int) -> float:
    """Seconds of one more token, after so many."""
    past, x = attention.project(torch.randn(1, length, WIDTH)), torch.randn(1, 1, WIDTH)
    return least(lambda: [attention.decode(x, past) for _ in range(20)], 3) / 20


def least(run: Callable[[], object], runs: int) -> float:
    """The least processor seconds of so many runs, after one that warms up."""
    seconds = []
    for _ in range(runs + 1):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


def slope(curve: Curve) -> float:
    """The exponent of growth over the four greatest lengths, by least squares of the logarithms."""
    far = sorted(curve)[-4:]
    x, y = torch.tensor(far).double().log2(), torch.tensor([curve[n] for n in far]).double().log2()
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / (x @ x))


def draw(reading: dict[str, Curve], writing: dict[str, Curve], slopes: dict[str, float]) -> Figure:
    """Both costs over length, on logarithmic axes."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for name, curve in reading.items():
        axes[0].loglog(
            list(curve), [1e3 * s for s in curve.values()], "o-", ms=4, label=f"{name}, L^{slopes[name]:.2f}"
        )
    axes[0].set(title=f"Reading a sequence, {WIDTH} channels", xlabel="length L", ylabel="ms")
    for name, curve in writing.items():
        axes[1].loglog(list(curve), [1e6 * s for s in curve.values()], "o-", ms=4, label=name)
    axes[1].set(title="Writing one more token", xlabel="tokens before it", ylabel="µs")
    for axis, curves in zip(axes, (reading, writing), strict=True):
        lengths = sorted({n for curve in curves.values() for n in curve})[::2]
        axis.set_xticks(lengths, [f"{n // 1024}k" if n >= 1024 else str(n) for n in lengths])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


# %%
if __name__ == "__main__":
    main()
