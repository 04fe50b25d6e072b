# %% [markdown]
# # A manual, letter by letter
#
# The reference manual of the Python language comes with Python: 460 thousand characters. A transformer of a quarter
# million parameters learns in two minutes to foretell the next one, far better than counts of pairs and triples do;
# and, letter after letter with a cache of what was said, to write a manual of its own. Its heads forget at fixed rates
# (ALiBi), so that texts may be longer than any that it was trained on. What do they look at?

# %%
from pathlib import Path
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy

from inference.training import Training, warmup_cosine
from ppmodels.nn.generate import generate
from ppmodels.nn.parameter_groups import parameter_groups
from ppmodels.nn.transformer import TransformerLM

BLOCK, BATCH = 64, 16
PROMPT = "The import "


def main(folder: str | Path = "runs/character_model", num_steps: int = 1500) -> float:
    """Learn, print scores and samples, draw learning and attention; return nats a character of held-out text."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    text = "\n".join(dict.fromkeys("\n".join(topics.values()).split("\n\n")))  # a paragraph that is repeated, once
    letters = sorted(set(text))
    codes = torch.tensor([letters.index(letter) for letter in text])
    seen, held_out = codes[: int(0.9 * len(codes))], codes[int(0.9 * len(codes)) :]
    network = TransformerLM(len(letters), width=96, layers=2, heads=4, position="alibi")
    generator, looks = torch.Generator().manual_seed(0), []

    def loss(_: Tensor | None) -> Tensor:
        start = torch.randint(len(seen) - BLOCK, (BATCH, 1), generator=generator)
        return nats(network, seen[start + torch.arange(BLOCK + 1)])

    run = Training(
        num_steps, 3e-3, groups=parameter_groups(network, 3e-3, 0.1), optimiser=torch.optim.AdamW, clip=1.0, window=100,
        schedule=warmup_cosine(num_steps // 15, num_steps, 0.1), progress_bar=True,
        callbacks=[lambda step, _: looks.append((step, score(network, held_out)))],
    )  # fmt: skip
    run.run(loss, network)
    counts = [ngram(seen, held_out, len(letters), order) for order in (1, 2, 3)]
    console, reached = Console(width=110), looks[-1][1]
    told = ", ".join(f"counts of {n} {c:.3f}" for n, c in enumerate(counts, 1))
    size = sum(p.numel() for p in network.parameters())
    console.print(f"nats a character of held-out text: {told}; transformer of {size} parameters {reached:.3f}")
    said = torch.tensor([[letters.index(letter) for letter in PROMPT]])
    for options in ({"temperature": 1.0}, {"temperature": 0.7}, {"top_p": 0.8}):
        told = generate(network, said, 220, generator=generator, **options)[0].tolist()
        console.print(f"\n{options}\n", "".join(letters[code] for code in told), sep="", markup=False, highlight=False)
    draw(network, -run.curves()["objective"], looks, counts, said, letters).savefig(Path(folder) / "model.png", dpi=150)
    return reached


def nats(network: TransformerLM, rows: Tensor) -> Tensor:
    """Nats a character of rows (B, T + 1)."""
    return cross_entropy(network(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


@torch.no_grad()
def score(network: TransformerLM, codes: Tensor) -> float:
    """Nats a character of a whole text, in blocks."""
    whole = codes[: (len(codes) - 1) // BLOCK * BLOCK + 1].unfold(0, BLOCK + 1, BLOCK)
    return float(nats(network, whole[:200]))


def ngram(seen: Tensor, codes: Tensor, size: int, order: int) -> float:
    """Nats a character by counts of so many letters in a row, with one tenth of a letter added to each count."""
    place = size ** torch.arange(order - 1, -1, -1)
    counts = (seen.unfold(0, order, 1) @ place).bincount(minlength=size**order).reshape(-1, size) + 0.1
    law = (counts / counts.sum(1, keepdim=True)).log().flatten()
    return -float(law[codes.unfold(0, order, 1) @ place].mean())


@torch.no_grad()
def draw(
    network: TransformerLM, curve: Tensor, looks: list[tuple[int, float]], counts: list[float], said: Tensor,
    letters: list[str],
) -> Figure:  # fmt: skip
    """Learning beside the counts, and where three heads look while they read what the model says."""
    figure, axes = plt.subplots(1, 4, figsize=(17, 4.6), layout="constrained")
    axes[0].plot(curve.unfold(0, 20, 1).mean(-1), lw=0.8, label="while learning")
    axes[0].plot(*zip(*looks, strict=True), "o-", ms=3, label="held out")
    for order, count in enumerate(counts, 1):
        axes[0].axhline(count, color="gray", lw=0.8, ls=":")
        axes[0].text(len(curve), count, f"counts of {order}", ha="right", va="bottom", color="gray", fontsize=8)
    axes[0].set(xlabel="step", ylabel="nats a character", title="Learning")
    axes[0].legend(fontsize=8, loc="center right")
    told = generate(network, said, 24, temperature=0.0)
    marks = [letters[code].replace("\n", "¶").replace(" ", "␣") for code in told[0].tolist()]
    first, second = network.encoder.stack
    x = network.embedding(told)
    maps = first.attention.weights(first.norm(x), causal=True)[0], None
    x = first(x, causal=True)
    maps = torch.cat([maps[0], second.attention.weights(second.norm(x), causal=True)[0]])  # (8, T, T)
    entropy = -(maps * maps.clamp(min=1e-9).log()).sum((1, 2))
    for axis, head in zip(axes[1:], entropy.argsort()[[0, 3, -1]].tolist(), strict=True):
        axis.imshow(maps[head], cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(marks)), marks, fontsize=7, family="monospace")
        axis.set_yticks(range(len(marks)), marks, fontsize=7, family="monospace")
        axis.set(title=f"Layer {head // 4 + 1}, head {head % 4 + 1}", xlabel="looked at", ylabel="having read")
    return figure


# %%
if __name__ == "__main__":
    main()
