"""Which server a model belongs to: weighted rendezvous hashing.

Every server gets a score for a model, and the highest has it. When a server leaves, only its own
models move, and they spread over all the others; when it comes back, it gets the same ones again.
The order of the scores is the order of failover. (Thaler and Ravishankar, "Using name-based
mappings to increase hit rates", 1998; weights as in Schindelhauer and Schomaker, 2005.)
"""

import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

_STEPS: Final = 1 << 52
"""Numbers that a float holds exactly with room for a half, so that no hash becomes 0 or 1."""


def rendezvous(model_id: str, weights: Mapping[str, float]) -> list[str]:
    """Return the servers in ``weights`` (name to weight, above 0) in the order in which they are to
    be asked for the avatar ``model_id``.

    Rendezvous hashing: the order follows from names and weights alone, and is the same in every
    process and on every machine. A server is the first for a share of all avatars that is in
    proportion to its weight; raising a server's weight moves avatars to that server only.
    """
    scored = [(_score(model_id, server, weight), server) for server, weight in weights.items()]
    return [server for _, server in sorted(scored, reverse=True)]


def _score(model_id: str, server: str, weight: float) -> float:
    # "surrogatepass" lets any str through: which names are allowed is for the server to say.
    key = f"{server}\0{model_id}".encode("utf-8", "surrogatepass")
    digest = int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
    uniform = ((digest >> 12) + 0.5) / _STEPS
    return -weight / math.log(uniform)
