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
    """Return the header fields that tell a client of ``standings``: of each limit how much (``q``)
    within how many seconds (``w``) and in which unit, where that is not requests (``qu``); how much
    is left (``r``), and in how many seconds there is more (``t``). Empty without limits."""
    if not standings:
        return {}
    policies, left = [], []
    for one in standings:
        unit = _UNITS.get(one.policy, "")
        policies.append(f'"{one.policy}";q={one.most};w={one.span_s}{unit}')
        left.append(f'"{one.policy}";r={one.remaining};t={math.ceil(one.renewed_in_s)}')
    return dict(zip(FIELDS, (", ".join(policies), ", ".join(left)), strict=True))
