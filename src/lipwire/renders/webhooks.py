"""Webhooks: whoever wants to know is told of a render's end, by a signed POST.

They are signed as Standard Webhooks are (https://www.standardwebhooks.com): the header
``webhook-signature`` has ``v1,`` and, in Base64, an HMAC-SHA256 over the headers ``webhook-id`` and
``webhook-timestamp`` and the body, with dots between them. What is to be told is written down
together with the end itself, and stays until the receiver has answered with a status of 2xx, or has
not for too long; so it may come twice, with one ``webhook-id``.
"""

import base64
import binascii
import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final

from lipwire import __version__
from lipwire.domain import LipwireError
from lipwire.domain.closing import Closing
from lipwire.renders.database import Database
from lipwire.renders.job import Job
from lipwire.security.outgoing import GivenBy, RefusedUrlError, Times, requested

_LOG: Final = logging.getLogger(__name__)
PREFIX: Final = "whsec_"
"""What a secret in Base64 begins with; others are taken as they are."""
_FIRST_S: Final = 5.0
_LONGEST_S: Final = 3600.0
"""The pause after the first failure, which doubles, and the longest."""
_LOOK_EVERY_S: Final = 2.0
"""How often it is looked for what other processes have written down."""
_LEAVE_S: Final = 10.0
_THREADS: Final = 4
"""Which send, so that receivers who take their time do not hold up all others."""
_GONE: Final = 410
"""With this status a receiver says that it wants none any more."""


@dataclass(frozen=True, slots=True)
class WebhookRules:
    """Which URLs are called (by POST) when a render has ended: ``url`` for every render (None:
    none), and, with ``of_orders``, also the URL that an order names. ``secret`` signs the messages:
    "whsec_" and Base64, or any other text. A request takes ``timeout_s`` seconds at most, and is
    sent up to ``max_tries`` times."""

    secret: str
    url: str | None = None
    of_orders: bool = False
    timeout_s: float = 10.0
    max_tries: int = 20

    def told(self, job: Job, told: dict[str, Any]) -> Iterable[tuple[str, GivenBy, str]]:
        """Yield (URL, given_by, body) for each webhook of the end of ``job``, which has ended and
        whose description for clients is ``told`` (``Telling.told``). ``given_by`` is "operator" for
        the URL of the configuration and "others" for that of the order; which addresses are allowed
        depends on it. ``body`` is JSON."""
        body = json.dumps({"type": f"render.{job.state}", "timestamp": told["ended"], "data": told})
        if self.url is not None:
            yield self.url, "operator", body
        if self.of_orders and job.order.webhook is not None:
            yield job.order.webhook, "others", body


def key_of(secret: str) -> bytes:
    """Return the bytes of the key that ``secret`` stands for: the Base64 after ``whsec_``, decoded,
    or the text itself, as UTF-8, where it does not begin with that. Raises ValueError where the
    part after ``whsec_`` is no Base64."""
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("the secret begins with whsec_, and what follows is no Base64") from None


def signature(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the value of the HTTP header ``webhook-signature`` for a message: "v1," and an
    HMAC-SHA256 in Base64. It is made with ``key`` (``key_of``) over ``message_id`` (the header
    ``webhook-id``), ``timestamp_s`` (seconds since 1970, the header ``webhook-timestamp``) and
    ``body``."""
    text = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode()


def pause_s(tries: int) -> float:
    """Return how many seconds to wait after ``tries`` attempts (1 or more) that have failed: 5, 10,
    20 and so on, an hour at most."""
    return min(_LONGEST_S, _FIRST_S * 2.0 ** min(tries - 1, 30))


@dataclass(frozen=True, slots=True)
class _Message:
    id: str
    url: str
    given_by: GivenBy
    body: str
    tries: int
    """How often it was tried, this time included."""


class Webhooks(Closing):
    """Sends the webhook messages that are written down in the database, in threads of its own,
    until the receiver has accepted each or it was tried as often as the rules allow. A context
    manager. Each of several processes may have one; each message is sent by one of them at a time.
    Thread-safe."""

    def __init__(
        self, database: Database, rules: WebhookRules, *, now: Callable[[], float] = time.time
    ) -> None:
        """``database`` has the messages, and ``rules`` say how they are signed and sent. ``now()``
        gives seconds since 1970. Raises ValueError where ``rules.secret`` begins with "whsec_" and
        is no Base64 after that (``key_of``)."""
        self._database = database
        self._rules = rules
        self._key = key_of(rules.secret)
        self._now = now
        self._wake = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name="lipwire-webhooks", daemon=True)
            for _ in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def notify(self) -> None:
        """Have a thread look for new messages at once, instead of within 2 s. Returns at once."""
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        """Stop sending. Waits for each of the four threads, 10 s at most; messages that were not
        accepted stay in the database. Closing twice is allowed."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(_LEAVE_S)

    def send_due(self) -> bool:
        """Send one message whose time has come, in this thread, and wait for the answer, for
        ``timeout_s`` of the rules at most. Returns True where there was a message, accepted or not,
        and False where there was none. A message that is not accepted is due again after a pause
        (``pause_s``), until it was tried ``max_tries`` times. Raises StorageFailed where the
        database cannot be used."""
        message = self._claimed()
        if message is None:
            return False
        if self._taken(message) or message.tries >= self._rules.max_tries:
            with self._database.changing() as connection:
                connection.execute("DELETE FROM webhooks WHERE id = ?", (message.id,))
            return True
        with self._database.changing() as connection:
            connection.execute(
                "UPDATE webhooks SET next_s = ? WHERE id = ?",
                (self._now() + pause_s(message.tries), message.id),
            )
        return True

    def _run(self) -> None:
        while True:
            try:
                sent = self.send_due()
            except LipwireError as error:
                _LOG.warning("webhooks wait: %s", error)
                sent = False
            except Exception:
                _LOG.exception("a webhook could not be sent")
                sent = False
            with self._wake:
                if not self._closed and not sent:
                    self._wake.wait(_LOOK_EVERY_S)
                if self._closed:
                    return

    def _claimed(self) -> _Message | None:
        """The next message; nobody else takes it before it has had its time."""
        with self._database.reading() as connection:
            due = connection.execute(
                "SELECT 1 FROM webhooks WHERE next_s <= ? LIMIT 1", (self._now(),)
            ).fetchone()
        if due is None:
            return None
        with self._database.changing() as connection:
            row = connection.execute(
                "UPDATE webhooks SET tries = tries + 1, next_s = ? WHERE id ="
                " (SELECT id FROM webhooks WHERE next_s <= ? ORDER BY next_s LIMIT 1)"
                " RETURNING id, url, given_by, body, tries",
                (self._now() + 3 * self._rules.timeout_s, self._now()),
            ).fetchall()
        return _Message(*row[0]) if row else None

    def _taken(self, message: _Message) -> bool:
        """Send a message; whether nobody has to send it again."""
        timestamp_s, body = int(self._now()), message.body.encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"lipwire/{__version__}",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature(self._key, message.id, timestamp_s, body),
        }
        times = Times(self._rules.timeout_s, self._rules.timeout_s)
        try:
            with requested(
                message.url,
                given_by=message.given_by,
                times=times,
                method="POST",
                body=body,
                headers=headers,
            ) as answer:
                status = answer.status
        except RefusedUrlError as error:
            _LOG.warning("webhook %s is not sent: %s", message.id, error)
            return True
        except (OSError, HTTPException) as error:
            self._log(message, str(error) or type(error).__name__)
            return False
        if 200 <= status < 300 or status == _GONE:
            return True
        self._log(message, f"status {status}")
        return False

    def _log(self, message: _Message, why: str) -> None:
        last = message.tries >= self._rules.max_tries
        _LOG.log(
            logging.WARNING if last else logging.INFO,
            "webhook %s was not taken, try %d of %d: %s",
            message.id,
            message.tries,
            self._rules.max_tries,
            why,
        )
