"""Every parser that meets foreign bytes, by its name."""

import functools

from tests.fuzz.filetargets import file_targets
from tests.fuzz.requesttargets import request_targets
from tests.fuzz.rpctargets import rpc_targets
from tests.fuzz.target import Target


@functools.cache
def all_targets() -> dict[str, Target]:
    """By name, in an order that stays."""
    found = [*file_targets(), *request_targets(), *rpc_targets()]
    return {each.name: each for each in found}


def names() -> list[str]:
    """Of all of them."""
    return list(all_targets())


def target_named(name: str) -> Target:
    """The one of that name."""
    return all_targets()[name]
