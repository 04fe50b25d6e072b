"""Transformers: a training step beside nanoGPT's and torch's own, generation with and without a cache, a recipe."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks._clock import fastest, timed
from benchmarks._record import recorded
from inference.training import Training, warmup_cosine
from ppmodels.nn.generate import generate
from ppmodels.nn.parameter_groups import parameter_groups
from ppmodels.nn.transformer import TransformerLM

LETTERS, WIDTH, LAYERS, HEADS, BLOCK, BATCH = 65, 128, 4, 4, 64, 12  # nanoGPT's recipe for a CPU
STEPS, RECIPE = 2000, 1.88


def compare(nanogpt: Path | None = None, text: Path | None = None, out: Path | None = None) -> None:
    """Print the tables; one thread, processor time.

    Args:
        nanogpt: a folder with nanoGPT's model.py, to be timed side by side.
        text: tiny Shakespeare, to follow nanoGPT's recipe for a CPU.
        out: a file for the tables as text.
    """
    torch.set_num_threads(1)
    with recorded(out, "torch"):
        training(nanogpt)
        generation()
        if text:
            recipe(text)


def training(folder: Path | None) -> None:
    """Milliseconds of forward, backward and AdamW (fused, clipped) at equal size, in turns; least of several rounds."""
    x, y = torch.randint(LETTERS, (2, BATCH, BLOCK), generator=torch.Generator().manual_seed(0))
    networks: dict[str, nn.Module] = {
        "ours, rotary": TransformerLM(LETTERS, WIDTH, LAYERS, HEADS),
        "ours, learned positions": TransformerLM(LETTERS, WIDTH, LAYERS, HEADS, position="learned", longest=BLOCK),
        "torch.nn.TransformerEncoder": Stock(),
    }
    if folder is not None:
        networks |= {"nanoGPT": nano(folder, bias=True), "nanoGPT, without biases": nano(folder, bias=False)}
    steps = {name: stepper(network, x, y) for name, network in networks.items()}
    least = dict.fromkeys(steps, float("inf"))
    for _ in range(10):
        for name, step in steps.items():
            least[name] = min(least[name], timed(lambda: [step() for _ in range(10)])[0] / 10)  # noqa: B023
    peer = least.get("nanoGPT", least["torch.nn.TransformerEncoder"])
    print(f"Training step, {LAYERS} layers, {WIDTH} wide, block {BLOCK}, batch {BATCH}, float32")
    print(f"{'':30} {'parameters':>11} {'ms':>7} {'peer / ours':>12}")
    for name, seconds in least.items():
        ratio = f"{peer / seconds:>12.2f}" if name.startswith("ours") else ""
        print(f"{name:30} {sum(p.numel() for p in networks[name].parameters()):>11} {1e3 * seconds:>7.2f} {ratio}")
    print(f"{'the matrix products alone':30} {'':>11} {1e3 * products():>7.2f}")


def products() -> float:
    """Seconds of what nobody can leave out: the products of the weights, forward, and backward to both sides."""
    rows, total = BATCH * BLOCK, 0.0
    shapes = LAYERS * [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)] + [(WIDTH, LETTERS)]
    for before, after in shapes:
        x, weight, back = torch.randn(rows, before), torch.randn(after, before), torch.randn(rows, after)
        total += fastest(lambda: (x @ weight.T, back @ weight, back.T @ x), 10)  # noqa: B023
    return total


def stepper(network: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """One step of learning, the same for all."""
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, (0.9, 0.99), fused=True)

    def step() -> None:
        found = network(x, y) if hasattr(network, "config") else network(x)  # nanoGPT wants the targets
        logits = found[0] if isinstance(found, tuple) else found
        loss = found[1] if isinstance(found, tuple) else cross_entropy(logits.flatten(0, 1), y.flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    step()
    return step


class Stock(nn.Module):
    """The same model of torch's own layers, with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(LETTERS, WIDTH), nn.Embedding(BLOCK, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", norm_first=True, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, LETTERS, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(BLOCK), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        return self.head(self.encoder(x, self.mask, is_causal=True))


def nano(folder: Path, bias: bool) -> nn.Module:
    """The peer's own model, of the same size; its recipe leaves the biases out."""
    spec: Any = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": BLOCK, "vocab_size": LETTERS}
    return module.GPT(module.GPTConfig(**sizes, dropout=0.0, bias=bias))


def generation() -> None:
    """Milliseconds to write so many tokens, batch 1."""
    network, prompt = TransformerLM(LETTERS, WIDTH, LAYERS, HEADS).eval(), torch.zeros(1, 1, dtype=torch.long)
    print(f"\nGeneration, batch 1: ms\n{'tokens':>8} {'cache':>8} {'without':>9} {'ratio':>6}")
    for count in (64, 128, 256):
        with_it, without = (
            timed(lambda: generate(network, prompt, count, cached=cached), 2)[0]  # noqa: B023
            for cached in (True, False)
        )
        print(f"{count:>8} {1e3 * with_it:>8.0f} {1e3 * without:>9.0f} {without / with_it:>6.1f}")


def recipe(path: Path) -> None:
    """Follow nanoGPT's recipe for a CPU on its own text: nats a character of the whole held-out tenth."""
    text = path.read_text()
    letters = sorted(set(text))
    codes = torch.tensor([letters.index(letter) for letter in text])
    seen, held_out = codes[: int(0.9 * len(codes))], codes[int(0.9 * len(codes)) :]
    blocks = held_out[: (len(held_out) - 1) // BLOCK * BLOCK + 1].unfold(0, BLOCK + 1, BLOCK)
    print(f"\ntiny Shakespeare, {len(letters)} letters, {STEPS} steps: nats a character held out (published {RECIPE})")
    torch.manual_seed(0)
    network = TransformerLM(len(letters), WIDTH, LAYERS, HEADS, position="learned", longest=BLOCK)
    generator = torch.Generator().manual_seed(0)

    def loss(_: Any) -> Tensor:
        start = torch.randint(len(seen) - BLOCK, (BATCH, 1), generator=generator)
        return nats(network, seen[start + torch.arange(BLOCK + 1)])

    def look(step: int, _: Any) -> None:
        if step % 500 == 0:
            with torch.no_grad():
                parts = [nats(network, part) * len(part) for part in blocks.split(200)]
            print(f"{step:>6} {float(torch.stack(parts).sum()) / len(blocks):.4f}", flush=True)

    run = Training(
        STEPS, 1e-3, clip=1.0, window=250, callbacks=[look], schedule=warmup_cosine(100, STEPS, 0.1),
        groups=parameter_groups(network, 1e-3, 0.1),
        optimiser=lambda groups, lr: torch.optim.AdamW(groups, lr, (0.9, 0.99), fused=True),
    )  # fmt: skip
    print(f"{timed(lambda: run.run(loss, network))[0]:.0f} CPU-s")


def nats(network: nn.Module, rows: Tensor) -> Tensor:
    """Nats a character of rows (B, T + 1)."""
    return cross_entropy(network(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
