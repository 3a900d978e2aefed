"""How many examples a property is tried with."""

from hypothesis import settings

USUAL = 100
"""Of a property that says nothing, in Hypothesis's own profiles."""


def examples(count: int) -> int:
    """``count`` for ``@settings(max_examples=...)``, and as much less as the profile in use has
    fewer examples than is usual: a test's own number would otherwise be that of every profile."""
    in_use = settings.default
    assert in_use is not None
    return max(1, count * in_use.max_examples // USUAL)
