"""What a request brings: JSON, names and numbers."""

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import HTTPConnection, Request

from lipwire.domain import InvalidInput
from lipwire.security import AccessControl
from lipwire.web.bodies import BodyRoom

_MOST_JSON_BYTES: Final = 1024 * 1024


def media_type(request: Request) -> str:
    """Return the media type of the body of ``request``, in lower case and without parameters, cut
    to 100 characters; empty where none is said."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()[:100]


def number(request: HTTPConnection, name: str, default: int) -> int:
    """Return the whole number that the query of ``request`` gives as ``name``; ``default`` where it
    gives none. Raises InvalidInput where the value is no whole number."""
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        return int(given)
    except ValueError:
        raise InvalidInput(f"{name} is {given[:50]}; allowed are whole numbers") from None


def length(asked: Mapping[str, Any], name: str, default: float) -> float:
    """Return the number, whole or not, that the JSON object ``asked`` has as ``name``; ``default``
    where it has none. Raises InvalidInput where the value is no number, or a whole number that no
    float can hold."""
    value = asked.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(f"{name} is {str(value)[:50]}; allowed are numbers")
    try:
        float(value)
    except OverflowError:
        raise InvalidInput(f"{name} is {str(value)[:50]}...; allowed is no such number") from None
    return value


def avatar_of(asked: Mapping[str, Any]) -> str:
    """Return the name of the avatar, the member ``avatar`` of the JSON object ``asked``. Raises
    InvalidInput where it has none, or that is no text. Whether there is such an avatar is not
    looked at."""
    name = asked.get("avatar")
    if not isinstance(name, str):
        raise InvalidInput('the body has no "avatar"; name one')
    return name


async def json_of(request: Request, control: AccessControl, room: BodyRoom) -> dict[str, Any]:
    """Return the JSON object that is the body of ``request``, up to 1 MiB; an empty one where there
    is no body. ``room`` holds the body while it is read, and ``control`` counts it for the caller's
    tenant.

    Raises InvalidInput where the body is no JSON object; HTTPException where it is too large,
    breaks off or takes too long, LimitExceeded where the tenant may not send it now, and Overloaded
    where ``room`` has no room for the body.
    """
    async with room.body(request, control, _MOST_JSON_BYTES) as data:
        try:
            value = json.loads(data or b"{}")
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput("the body is no JSON object")
    return value
