"""What a fit was asked for, and whether that can be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.base import Unsupported
from inference.svi.objective import AUTOMATIC, Survey
from inference.training.loop import Training
from inference.training.plateau import Plateau
from ppmodels.base import Data, HasBlocks, HasGuide, Model

GRADIENTS = ("path", "score", "natural", "fixed")
DIVERGENCES = ("reverse", "forward")
MORE = ("clip", "ema", "groups", "optimiser", "precision", "schedule", "window")  # of the training loop


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    guide: Any
    num_steps: int
    lr: float | None
    batch_size: int | None
    num_particles: int | None
    num_restarts: int | None
    num_samples: int
    tol: float
    patience: int
    loss: Any = None
    held_out: Data | None = None
    training: Mapping[str, Any] | None = None
    gradient: str = "path"
    divergence: str = "reverse"

    def refuse(self, model: Any, args: tuple[Any, ...]) -> None:
        """Raise where the options cannot be, by themselves or with this model."""
        counts = ("num_steps", "batch_size", "num_particles", "num_restarts", "num_samples", "patience")
        for name in counts:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; it is {getattr(self, name)}")
        if isinstance(self.guide, str) and self.guide not in ("hand", "blocks", *AUTOMATIC):
            raise ValueError(f"no guide is called {self.guide!r}; there are: hand, blocks, {', '.join(AUTOMATIC)}")
        for name, choice in (("gradient", GRADIENTS), ("divergence", DIVERGENCES)):
            if getattr(self, name) not in choice:
                raise ValueError(f"no {name} is called {getattr(self, name)!r}; there are: {', '.join(choice)}")
        if self.gradient == "score" and self.num_particles == 1:
            raise ValueError("the score gradient compares draws with one another; num_particles must be at least 2")
        name = getattr(model, "__name__", type(model).__name__)
        if self.guide == "hand" and not isinstance(model, HasGuide):
            raise Unsupported(f"{name} has no guide of its own")
        if self.guide == "blocks" and not isinstance(model, HasBlocks):
            raise Unsupported(f"{name} has no blocks with laws in closed form")
        if self.guide == "blocks" and not (self.plain and not self.special):
            raise Unsupported("guide='blocks' takes all rows, and has a bound and a way of its own")
        strange = [option for option in self.training or {} if option not in MORE]
        if strange:
            raise ValueError(f"training has no {strange[0]!r}; it has: {', '.join(MORE)}")
        if self.loss is not None and not hasattr(self.loss, "differentiable_loss"):
            raise TypeError("loss must be an ELBO of inference.svi or pyro.infer, with a differentiable_loss")
        if self.held_out is not None and not isinstance(model, Model):
            raise Unsupported("held_out takes a `Data`; a plain program has none")
        if self.batch_size is not None and not (isinstance(model, Model) and isinstance(args[0], Data)):
            raise Unsupported("batch_size takes rows of a `Data`; a plain program sub-samples its own plate")

    def name(self, model: Any, survey: Survey) -> str:
        """The guide's name; raise where the model cannot have it."""
        if not (survey.latent or survey.discrete or survey.endless or survey.learned):
            raise Unsupported("the model has no latent site and no parameter; there is nothing to infer")
        if self.guide is not None and not isinstance(self.guide, str):
            return getattr(self.guide, "__name__", type(self.guide).__name__)
        if self.guide == "blocks":
            return "blocks"
        if self.guide == "hand" or (self.guide is None and isinstance(model, HasGuide)):
            return "hand"
        if survey.endless:
            raise Unsupported(f"site {survey.endless[0]!r} is discrete without end; it needs a guide by hand")
        if not survey.latent:
            return "none"
        if self.batch_size is not None and survey.row_latent:
            raise Unsupported(f"site {survey.row_latent[0]!r} has a value a row; minibatches need a guide by hand")
        return self.guide or "mean-field"

    @property
    def special(self) -> str:
        """What was asked for that only a guide by name on the flat density has, or nothing."""
        if self.divergence != "reverse":
            return f"divergence={self.divergence!r}"
        return f"gradient={self.gradient!r}" if self.gradient != "path" else ""

    @property
    def plain(self) -> bool:
        """Is nothing asked for that only the training loop has?"""
        return self.batch_size is None and self.loss is None and self.held_out is None and not self.training

    def prepare(self, **run: Any) -> Training:
        """Return a training loop that has yet to be told its loss."""
        more = dict(self.training or {})
        plateau = None if more.get("schedule") else Plateau(self.tol, self.patience)
        return Training(self.num_steps, self.lr or 0.01, plateau, batch_size=self.batch_size, **run, **more)
