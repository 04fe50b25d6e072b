"""A short run that is made in several ways, all of which must give the same draws."""

import torch

from tests.inference.programs import normal_of_unknown_scale as program

Y = torch.tensor([1.2, 0.4, -0.3, 2.0, 1.1], dtype=torch.float64)
SHORT = {"num_chains": 4, "num_warmup": 40, "num_samples": 120, "compile": False, "seed": 5}

__all__ = ["SHORT", "Y", "assert_same", "program"]


def assert_same(one, other):
    """Bit for bit the same draws and sample statistics."""
    for ours, theirs in ((one.draws, other.draws), (one.stats, other.stats)):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), name
