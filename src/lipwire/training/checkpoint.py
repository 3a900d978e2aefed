"""Checkpoints: written whole or not at all, and enough to go on as if nothing had happened."""

import pickle
from pathlib import Path
from typing import Any

import torch

from lipwire.domain import InvalidInput, StorageFailed
from lipwire.domain.newfiles import new_file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, nested) to the file ``path``, replacing what was
    there; its folder is made.

    A crash or a full disk leaves the old file as it was. Raises StorageFailed where it cannot be
    written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        raise StorageFailed(f"checkpoint {path} cannot be written: {error}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state that :func:`save_checkpoint` wrote to the file ``path``, tensors on the
    processor. Raises InvalidInput where it is missing, damaged, no dictionary, or holds code, which
    is never run."""
    if not path.is_file():
        raise InvalidInput(f"checkpoint {path} is not a file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise InvalidInput(f"checkpoint {path} is damaged: UnpicklingError") from error
        raise InvalidInput(
            f"checkpoint {path} holds more than weights, which needs code to be run that is in it;"
            " save the state_dict() of the network instead"
        ) from error
    except Exception as error:  # a damaged file surfaces as one of many types
        raise InvalidInput(f"checkpoint {path} is damaged: {type(error).__name__}") from error
    if not isinstance(state, dict):
        raise InvalidInput(f"checkpoint {path} holds a {type(state).__name__}, not a dictionary")
    return state
