"""Benchmarks: each module compares Lipwire's way with the plain way, both in one run.

A module ``lipwire.bench.<name>`` offers ``run(rounds=...) -> list[Comparison]``, and
``lipwire bench <name>`` prints what it returns.
"""

from lipwire.bench.harness import Comparison, compare

__all__ = ["Comparison", "compare"]
