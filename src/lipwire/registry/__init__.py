"""Loaded things by name: a cache that loads each once, keeps what is in use, and has a budget.

What is loaded is for the caller to say: nothing here depends on avatars, networks or servers.
"""

from lipwire.registry.eviction import Policy
from lipwire.registry.items import ItemStats, Loaded, RegistryStats, RegistryTotals
from lipwire.registry.registry import Registry, Use

__all__ = [
    "ItemStats",
    "Loaded",
    "Policy",
    "Registry",
    "RegistryStats",
    "RegistryTotals",
    "Use",
]
