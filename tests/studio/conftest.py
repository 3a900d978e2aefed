import sys

import pytest


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Random weights and pictures are the same whatever was drawn before, in whatever order."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
