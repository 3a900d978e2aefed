"""What somebody asks for, checked, as an order."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from lipwire.domain import Access, InvalidInput, NotFound
from lipwire.domain.names import MAX_NAME_CHARACTERS, canonical_name
from lipwire.renders.job import FORMATS, Order, VideoFormat
from lipwire.security.outgoing import MAX_URL_CHARACTERS
from lipwire.speech import MAX_TEXT

MOST_START: Final = 1_000_000
"""The highest frame of an avatar with which a video may begin."""
MOST_LISTED: Final = 1000
"""Renders of one list."""
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


def order_of(
    access: Access,
    names: Callable[[], Sequence[str]],
    *,
    avatar: str,
    text: str | None,
    video_format: object = "mp4",
    start_frame: object = 0,
    webhook: object = None,
    key: str | None = None,
    takes_webhooks: bool = False,
) -> Order:
    """Return the order of the caller with ``access``, after checking it: ``avatar``, one of
    ``names()``, says ``text`` (None: a recording, which is not a part of the order), in
    ``video_format`` ("mp4" or "hls"), beginning with its frame ``start_frame`` (a whole number, 0
    to 1,000,000).

    ``webhook`` is an http or https URL that is called when the render has ended (None: none); it is
    allowed only with ``takes_webhooks``. ``key`` is the idempotency key, 1 to 255 visible
    characters of ASCII (None: there is none). Arguments that are ``object`` may be whatever a
    client has sent.

    Raises NotFound where there is no such avatar for the caller, and InvalidInput, with the value
    seen and the values allowed, where another argument is not allowed.
    """
    name = canonical_name(avatar)
    if not access.sees(name) or name not in map(canonical_name, names()):
        raise NotFound(f"no avatar named {name[:MAX_NAME_CHARACTERS]}")
    if text is not None and len(text) > MAX_TEXT:
        raise InvalidInput(f"the text has {len(text)} characters; allowed are {MAX_TEXT}")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidInput(
            f"the idempotency key is {key[:50]!r}; allowed are 1 to 255 characters of ASCII that"
            " are shown, without blanks"
        )
    return Order(
        tenant=access.tenant,
        subject=access.subject,
        avatar=name,
        format=_format_of(video_format),
        text=text,
        start_frame=_start_of(start_frame),
        webhook=_webhook_of(webhook, takes_webhooks),
        key=key,
    )


def listed(most: int) -> int:
    """Return ``most``, how many renders a client wants in a list, unchanged. Raises InvalidInput
    where it is not 1 to 1000."""
    if not 1 <= most <= MOST_LISTED:
        raise InvalidInput(f"most is {most}; allowed are 1 to {MOST_LISTED}")
    return most


def _format_of(given: object) -> VideoFormat:
    for known in FORMATS:
        if given == known:
            return known
    raise InvalidInput(f"format is {str(given)[:50]}; allowed are {', '.join(FORMATS)}")


def _start_of(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= MOST_START:
        raise InvalidInput(
            f"start_frame is {str(given)[:50]}; allowed are whole numbers, 0 to {MOST_START}"
        )
    return given


def _webhook_of(given: object, taken: bool) -> str | None:
    if given is None:
        return None
    if not taken:
        raise InvalidInput(
            "webhook is given; this server takes none from requests"
            " (renders.webhooks.from_requests)"
        )
    if (
        not isinstance(given, str)
        or not given.lower().startswith(("https://", "http://"))
        or len(given) > MAX_URL_CHARACTERS
    ):
        raise InvalidInput(f"webhook is {str(given)[:60]}; allowed is a URL of http or https")
    return given
