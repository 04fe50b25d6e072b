"""Fixtures that tests of several folders use; a file asks for them by `pytestmark = pytest.mark.usefixtures(...)`."""

import pytest
import torch


@pytest.fixture
def double_precision():
    """float64 where nothing else is said, and a seeded generator; afterwards the dtype is what it was."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)
