"""Random numbers for tests: the same wherever they are drawn, and whatever was drawn before."""

import torch


def normal(*shape, seed=0, dtype=torch.float64):
    """Standard normal."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def signs(*shape, seed=0, dtype=torch.float64):
    """+1 or -1, equally likely."""
    return 2 * torch.randint(2, shape, generator=torch.Generator().manual_seed(seed)).to(dtype) - 1
