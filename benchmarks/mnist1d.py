"""A diagonal state space on MNIST-1D: ten classes of sequences of length 40, made by their own package."""

from pathlib import Path

import torch
from mnist1d.data import get_dataset_args, make_dataset
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks._clock import timed
from benchmarks._record import recorded
from inference.training import Training, warmup_cosine
from ppmodels.nn.parameter_groups import parameter_groups
from ppmodels.nn.ssm_stack import SSMStack

EPOCHS, BATCH, TARGET = 40, 50, 0.97
PUBLISHED = "published: logistic 0.32, perceptron 0.68, GRU 0.91, convolutions 0.94, people 0.96"


def compare(out: Path | None = None) -> None:
    """Print held-out accuracy over epochs; one thread, processor time.

    Args:
        out: a file for the table as text.
    """
    torch.set_num_threads(1)
    with recorded(out, "torch", "mnist1d"):
        learn()


def learn() -> None:
    """Three layers, 64 channels of 32 states, trained on 4000 sequences, judged on 1000."""
    told = make_dataset(get_dataset_args())
    x, new = (torch.tensor(told[name], dtype=torch.float32)[..., None] for name in ("x", "x_test"))
    y, truth = torch.tensor(told["y"]), torch.tensor(told["y_test"])
    torch.manual_seed(0)
    network = SSMStack(1, 10, width=64, layers=3, states=32, pool="mean", dropout=0.1)
    steps = EPOCHS * len(x) // BATCH
    print(f"{sum(p.numel() for p in network.parameters())} parameters, {PUBLISHED}, target {TARGET}")

    def loss(rows: Tensor) -> Tensor:
        return cross_entropy(network(x[rows]), y[rows])

    def look(step: int, _: float) -> None:
        network.eval()
        with torch.no_grad():
            right = float((network(new).argmax(-1) == truth).double().mean())
        network.train()
        print(f"epoch {step * BATCH // len(x):>3}: {right:.3f} of the held-out sequences", flush=True)

    run = Training(
        steps, 1e-2, rows=len(x), batch_size=BATCH, window=10 * len(x) // BATCH, clip=1.0, callbacks=[look],
        optimiser=torch.optim.AdamW, groups=parameter_groups(network, 1e-2, 0.01),
        schedule=warmup_cosine(steps // 20, steps),
    )  # fmt: skip
    seconds, _ = timed(lambda: run.run(loss, network))
    print(f"{seconds:.0f} CPU-s")
