"""How many chains, how long, and by which kernel: what the user did not say is decided by what a gradient costs."""

import math
from dataclasses import dataclass, replace
from typing import Any

from inference.density import Density
from inference.optimum.blocks import together

KERNELS = ("auto", "hmc", "chees", "nuts", "mams", "nutpie", "gibbs")
MANY = 256  # chains that a cheap gradient carries for nearly the price of one
FEW = 4
TOGETHER = 32  # chains that warm up, where fewer are asked for and gradients are cheap
NEARLY_FREE = 250_000  # numbers that a batched gradient may write at a price like that of the calls around it
IN_STEP = ("hmc", "chees", "mams")  # kernels whose chains all take the same number of steps
BLOCK = 64  # chains that one worker moves together at most
DATA = 1000  # numbers that a gradient writes a coordinate where data outnumber coordinates by far
LEAPS = 8  # gradients that a draw is expected to take, for the decision to compile


@dataclass(frozen=True)
class Plan:
    """All that decides the draws, apart from model and data."""

    seed: int
    num_samples: int
    num_warmup: int
    num_chains: int
    kernel: str
    target_accept_prob: float
    max_tree_depth: int
    init: str
    compile: bool | str
    save_warmup: bool
    centred: bool | str = "auto"  # whether sites with a latent scale are; "auto" learns it
    in_blocks: bool = False  # whether blocks of chains draw each with a generator of its own
    warmup_chains: int = 0  # chains that adapt together; at least num_chains
    lanes: int = 0  # chains that move together in the draws; those beyond num_chains are not kept

    @property
    def block(self) -> int:
        """Chains in a block: at least four blocks, however many workers there are, and none too long for a core."""
        return min(BLOCK, math.ceil(self.num_chains / FEW))

    @property
    def warmup_calls(self) -> int:
        """Gradients that the batch of the warm-up is expected to take; the draws too, where it makes them."""
        return LEAPS * (self.num_warmup + (self.expected_draws if self.warmup_chains == self.lanes else 0))

    def draw_calls(self, leaps: float) -> int:
        """Gradients of the draws, where one takes so many."""
        return math.ceil(leaps * self.expected_draws)

    @property
    def expected_draws(self) -> int:
        """Twice the warm-up, whatever num_samples is: so an extended run is compiled as the longer run would be."""
        return 2 * self.num_warmup


def plan(**options: Any) -> dict[str, Any]:
    """Check what the user asked for, before anything is computed.

    Raises: ValueError naming the option.
    """
    for name in ("num_samples", "num_chains"):
        if options[name] is not None and options[name] < 1:
            raise ValueError(f"{name} must be at least 1; got {options[name]}")
    if options["num_warmup"] is not None and options["num_warmup"] < 0:
        raise ValueError(f"num_warmup must not be negative; got {options['num_warmup']}")
    if not 0 < options["target_accept_prob"] < 1:
        raise ValueError(f"target_accept_prob must lie between 0 and 1; got {options['target_accept_prob']}")
    if options["max_tree_depth"] < 1:
        raise ValueError(f"max_tree_depth must be at least 1; got {options['max_tree_depth']}")
    if options["compile"] not in (True, False, "auto"):
        raise ValueError(f"compile is True, False or 'auto'; got {options['compile']!r}")
    if options["kernel"] not in KERNELS:
        raise ValueError(f"no kernel {options['kernel']!r}; there are: {', '.join(KERNELS)}")
    if options["centred"] not in (True, False, "auto"):
        raise ValueError(f"centred is True, False or 'auto'; got {options['centred']!r}")
    if options["init"] not in ("pathfinder", "uniform"):
        raise ValueError(f"init is 'pathfinder' or 'uniform'; got {options['init']!r}")
    return options


def check_goals(target_ess: float | None, timeout: float | None, workers: int | None) -> None:
    """Check what decides when and where draws are made.

    Raises: ValueError naming the option.
    """
    for name, value in (("target_ess", target_ess), ("timeout", timeout)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive; got {value}")
    if workers is not None and workers < 1 and workers != -1:
        raise ValueError(f"workers is a number of processes, or -1 for one a core; got {workers}")


def complete(options: dict[str, Any], density: Density) -> Plan:
    """Decide what was left open."""
    affordable = max(FEW, together(density, MANY))
    alone = options["kernel"] == "nutpie"  # its chains run and adapt one by one
    chains = options["num_chains"] or (FEW if alone else affordable)
    many = chains >= 32
    samples = options["num_samples"] or (500 if many else 1000)
    adapting = chains if alone else max(chains, min(TOGETHER, affordable))
    warmup = options["num_warmup"]
    if warmup is None:
        warmup = 250 if adapting >= 32 else 600
    decided = {"num_chains": chains, "num_samples": samples, "num_warmup": warmup, "warmup_chains": adapting}
    made = Plan(**{**options, **decided, "lanes": chains})
    if made.kernel == "auto":
        made = replace(made, kernel=_kernel(density))
    if made.kernel in IN_STEP and not made.in_blocks and density.cost * adapting <= NEARLY_FREE:
        made = replace(made, lanes=adapting)  # one compiled step serves warm-up and draws
    return made


def _kernel(density: Density) -> str:
    """The kernel of most effective draws a gradient.

    Where data outnumber many coordinates the posterior is near a Gaussian, and steps of one length (mams) lose
    fewer proposals: a third more on regressions of 25 to 150 coefficients. Elsewhere, as on networks, jittered
    trajectories (hmc) are level or ahead, and a turn of theirs is shorter. On all of them trees (nuts) take twice
    the gradients, since chains in one batch wait for the longest.
    """
    return "mams" if density.dim >= 20 and density.cost >= DATA * density.dim else "hmc"
