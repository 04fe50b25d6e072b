"""A load of text worked through: subsampled, cut into windows, and climbed step by step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ppmodels.embedding._objective import Objective
from ppmodels.embedding._step import Damping, Prediction, Scratch, ascend
from ppmodels.embedding.tokens import Load
from ppmodels.embedding.windows import Windows, blocks

LOAD = 50_000  # words that one call of `Plan.train` works through
TOLD = 5  # steps of a load, about, of which the loss is told
AT_ONCE = 3  # occurrences of a word in a step, beyond which they are damped


@dataclass
class Plan:
    """All that a load needs but the vectors; it is sent to every process."""

    loads: Sequence[Load]
    objective: Objective
    cbow: bool
    window: int
    dynamic: bool
    keep: Tensor
    epochs: int
    lr: float
    batch_size: int
    seed: int
    device: str
    layered: bool = False
    damping: tuple[Tensor | None, Tensor | None] = (None, None)  # of rows of v and of u
    damping_of_all: Damping = field(default_factory=Damping)

    def __post_init__(self) -> None:
        """Make a step a whole number of blocks."""
        block = self.objective.block
        self.batch_size = max(1, round(self.batch_size / block)) * block

    def damp(self, counts: Tensor) -> None:
        """Shorten the steps of what stands in a step many times, so that their sum does not overshoot."""
        share = self.keep * counts / (self.keep * counts).sum()
        output = self.objective.share(share)
        rest, shared = output.tensor_split([len(output) - self.objective.shared])
        self.damping = self._damping(share), self._damping(rest, len(output))
        layer = min(1.0, AT_ONCE / self.batch_size)  # every word of a step comes by it
        self.damping_of_all = Damping(self._damping(shared), layer)

    def _damping(self, share: Tensor, rows: int = 0) -> Tensor | None:
        """By which rows that are so large a part of all are damped, 1 for further ones; None where by nothing."""
        often = self.batch_size * share
        if not len(often) or float(often.max()) <= AT_ONCE:
            return None
        damping = (AT_ONCE / often).clamp(max=1).float()
        return torch.nn.functional.pad(damping, (0, max(0, rows - len(damping))), value=1.0).to(self.device)

    @torch.inference_mode()
    def train(self, number: int, v: Tensor, u: Tensor) -> float:
        """Update v and u in place by load `number`, counted through all epochs; return a pair's mean loss."""
        load = self.loads[number % len(self.loads)]
        generator = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + number)
        tokens = torch.from_numpy(load.read().copy()).long().to(self.device)
        windows = self._windows(tokens, generator)
        batch = Prediction.of(windows, self.objective, self.cbow, generator).damped(*self.damping)
        size = self.batch_size // self.objective.block
        steps, losses, scratch = -(-len(batch.rows) // size), [], Scratch()
        for i, part in enumerate(batch.split(size)):
            share = (number + i / steps) / (len(self.loads) * self.epochs)
            lr = self.lr * max(1 - share, 1e-4)
            told = i % max(1, steps // TOLD) == 0
            loss = ascend(part, v, u, self.objective, lr, self.damping_of_all, told, scratch, self.layered)
            losses += [] if math.isnan(loss) else [loss]  # a step without a pair tells none
        return sum(losses) / len(losses) if losses else math.nan

    def _windows(self, tokens: Tensor, generator: torch.Generator) -> Windows:
        """Subsample a load's words, and cut what is left into windows."""
        word, sentence = tokens >= 0, (tokens < 0).cumsum(0)
        chance = self.keep.to(tokens.device)[tokens.clamp(min=0)]
        uniform = torch.rand(len(tokens), generator=generator, dtype=chance.dtype, device=tokens.device)
        kept = word & (uniform < chance)
        tokens, sentence = tokens[kept], sentence[kept]
        more, c = -len(tokens) % self.objective.block, self.window
        tokens = torch.nn.functional.pad(tokens, (c, c + more))
        sentence = torch.nn.functional.pad(sentence, (c, c + more), value=-1)
        reach = torch.full((len(tokens) - 2 * c,), c, device=tokens.device)
        if self.dynamic:
            reach = torch.randint(1, c + 1, reach.shape, generator=generator, device=tokens.device)
        return blocks(tokens, sentence, reach, c, torch.float32, self.objective.block)
