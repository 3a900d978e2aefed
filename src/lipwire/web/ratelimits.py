"""What answers say of a tenant's limits: the fields ``RateLimit-Policy`` and ``RateLimit`` of
https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (version 10).
"""

import math
from collections.abc import Sequence
from typing import Final

from lipwire.security import Standing
from lipwire.security.limits import FRAMES, UPLOAD

FIELDS: Final = ("RateLimit-Policy", "RateLimit")
_UNITS: Final = {UPLOAD: ';qu="content-bytes"', FRAMES: ';qu="frames"'}


def rate_limit_fields(standings: Sequence[Standing]) -> dict[str, str]:
    """Return the HTTP header fields, by name, that tell a client how near it is to its limits,
    ``standings``. ``RateLimit-Policy`` lists for each limit how much is allowed (``q``), within how
    many seconds (``w``), and the unit, where that is not requests (``qu``); ``RateLimit`` how much
    is left (``r``), and in how many seconds there is more (``t``). Empty without standings."""
    if not standings:
        return {}
    policies, left = [], []
    for one in standings:
        unit = _UNITS.get(one.policy, "")
        policies.append(f'"{one.policy}";q={one.most};w={one.span_s}{unit}')
        left.append(f'"{one.policy}";r={one.remaining};t={math.ceil(one.renewed_in_s)}')
    return dict(zip(FIELDS, (", ".join(policies), ", ".join(left)), strict=True))
