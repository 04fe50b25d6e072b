# %% [markdown]
# # What was said fifty steps ago? A state space remembers, a recurrent network of its size forgets
#
# A stream of noise must be repeated with a delay. Nothing in the last 49 steps helps. A state space of Legendre
# kind (S4D-LegT) holds a window of the past as coefficients of polynomials, and finds the delay; an ordinary
# recurrent network with as many parameters does no better than silence.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor, nn

from inference.training import Training, warmup_cosine
from ppmodels.nn.parameter_groups import parameter_groups
from ppmodels.nn.s4d import S4D
from ppmodels.nn.ssm_stack import SSMStack

DELAY, LENGTH = 50, 100


class Recurrent(nn.Module):
    """A recurrent layer with tanh and a linear head, (B, L, 1) -> (B, L, 1)."""

    def __init__(self, width: int):
        super().__init__()
        self.cell, self.head = nn.RNN(1, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0])


def main(folder: str | Path = "runs/long_memory", num_steps: int = 600) -> dict[str, float]:
    """Train both, print their errors, draw errors, answers, kernels and spectra; return the errors on new noise."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    space = SSMStack(1, 1, width=16, layers=1, states=64, init="legt", dt=(0.01, 0.1))
    before = space.layers[0].ssm.kernel(LENGTH).detach()
    width = next(w for w in range(1, 999) if size(Recurrent(w)) >= size(space))
    networks: dict[str, nn.Module] = {"state space": space, "recurrent network": Recurrent(width)}
    curves, errors = {name: trained(network, num_steps) for name, network in networks.items()}, {}
    x = torch.randn(200, LENGTH, 1, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, network in networks.items():
            errors[name] = float((network(x)[:, DELAY:] - x[:, :-DELAY]).square().mean())
            Console().print(f"{name}: {size(network)} parameters, error {errors[name]:.3f} (silence: 1)")
    draw(networks, curves, x[0, :, 0], before).savefig(Path(folder) / "long_memory.png", dpi=150)
    return errors


def size(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


def trained(network: nn.Module, num_steps: int) -> Tensor:
    """Learn on fresh noise at every step; the error of each step."""
    generator = torch.Generator().manual_seed(0)

    def loss(_: Tensor | None) -> Tensor:
        x = torch.randn(16, LENGTH, 1, generator=generator)
        return (network(x)[:, DELAY:] - x[:, :-DELAY]).square().mean()

    run = Training(
        num_steps, 5e-3, groups=parameter_groups(network, 5e-3, 0.0), schedule=warmup_cosine(50, num_steps), clip=1.0,
        progress_bar=True,
    )  # fmt: skip
    return -run.run(loss, network).curves()["objective"]


@torch.no_grad()
def draw(networks: dict[str, nn.Module], curves: dict[str, Tensor], x: Tensor, before: Tensor) -> Figure:
    """Errors while learning, one answer, and the state space's kernels and spectrum."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.6), layout="constrained")
    axes[0, 1].plot(x[:-DELAY], color="black", lw=2.5, alpha=0.25, label=f"{DELAY} steps ago")
    for name, network in networks.items():
        axes[0, 0].semilogy(curves[name].unfold(0, 20, 1).mean(-1), label=name)
        axes[0, 1].plot(network(x[None, :, None])[0, DELAY:, 0], lw=1, label=name)
    axes[0, 0].set(xlabel="step", ylabel="squared error (silence: 1)", title="Learning")
    axes[0, 1].set(xlabel=f"time, from step {DELAY}", title="Answers")
    axes[0, 0].legend(fontsize="small")
    axes[0, 1].legend(fontsize="small", loc="upper center", ncols=3)
    axes[0, 1].set_ylim(-3, 4)
    ssm: S4D = networks["state space"].layers[0].ssm
    after, height = ssm.kernel(LENGTH), len(before)
    both = torch.cat([before, torch.full((1, LENGTH), torch.nan), after])
    shown = axes[1, 0].imshow(both, aspect="auto", cmap="RdBu", vmin=-0.8, vmax=0.8, interpolation="nearest")
    figure.colorbar(shown, ax=axes[1, 0], label="weight of the input so long ago")
    axes[1, 0].set_yticks([height / 2, 1.5 * height + 1], ["before", "after"], rotation=90, va="center")
    axes[1, 0].set(xlabel="lag", title=f"Kernels of {height} channels: what is needed lies {DELAY} steps back")
    step = ssm.log_dt.exp()[:, None]  # (H, 1)
    axes[1, 1].loglog(step * ssm.frequency.abs() / (2 * torch.pi), 1 / (step * ssm.log_decay.exp()), ".", color="C0")
    axes[1, 1].set(xlabel="cycles per step", ylabel="memory in steps", title="States of all channels")
    return figure


# %%
if __name__ == "__main__":
    main()
