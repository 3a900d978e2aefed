"""Clients that ask, cancel, have little time, or disconnect; and compare every frame."""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import grpc

from lipwire.bench.chaos.cast import Cast, Question
from lipwire.bench.chaos.comparison import Comparison
from lipwire.rpc.generated import compositing_pb2 as pb
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.transport import open_channel

_PATIENT_S: Final = 60.0
_CANCELLED: Final = 0.10
_HURRIED: Final = 0.08
_VANISHING: Final = 0.02
"""Shares of the requests; the rest have to succeed."""
_CHANGING: Final = 0.4
"""The least share of the requests for avatars whose packages are replaced, if there are any."""
_SOON_S: Final = 0.08
_KEPT: Final = 20
"""Descriptions of what went wrong; the rest is only counted."""
_MAX_MESSAGE_BYTES: Final = 100 * 2**20


class Tally:
    """Counts how requests about the avatars of ``cast`` ended (``counts``), and keeps lines about
    wrong frames (``wrong``) and about errors (``errors``), the first 20 of each. Thread-safe."""

    def __init__(self, cast: Cast) -> None:
        self.counts: Counter[str] = Counter()
        """Requests by what became of them, calls about models included."""
        self.frames = 0
        """Frames that were looked at."""
        self.wrong: list[str] = []
        self.errors: list[str] = []
        self._lock = threading.Lock()
        self._whose = {
            frame: f"{look.package.name}, speech {speech}, frame {index}"
            for role in cast.roles
            for look in role.looks
            for speech, frames in enumerate(look.frames)
            for index, frame in enumerate(frames)
        }

    @property
    def answered(self) -> int:
        """How many requests were answered with frames, right or wrong ones."""
        with self._lock:
            return self.counts["right"] + self.counts["wrong"]

    def count(self, what: str) -> None:
        """Add 1 to ``counts[what]``. ``what`` says how a request ended, or what was done to a
        server, for example "cancelled" or "unload"."""
        with self._lock:
            self.counts[what] += 1

    def error(self, what: str) -> None:
        """Count an error that no client should have seen, and add ``what``, one line about it, to
        ``errors``, which keeps the first 20."""
        with self._lock:
            self.counts["error"] += 1
            if len(self.errors) < _KEPT:
                self.errors.append(what)

    def session(self, name: str, comparison: Comparison) -> None:
        """Add a live session of the avatar called ``name``, whose frames ``comparison`` has
        checked: its numbers of frames to ``counts``, under "live frames right", "live frames held"
        (with an earlier mouth) and "live frames left out". Where it found something wrong, add 1 to
        ``counts["wrong"]`` and one line about the first fault to ``wrong``, which keeps the first
        20."""
        with self._lock:
            self.frames += comparison.right + comparison.held + len(comparison.wrong)
            self.counts["live frames right"] += comparison.right
            self.counts["live frames held"] += comparison.held
            self.counts["live frames left out"] += comparison.dropped
            if comparison.wrong:
                self.counts["wrong"] += 1
                what = f"{name}, a live session: {comparison.wrong[0]}"
                if len(comparison.wrong) > 1:
                    what += f", and {len(comparison.wrong) - 1} more"
                if len(self.wrong) < _KEPT:
                    self.wrong.append(what)

    def look_at(self, question: Question, answer: pb.CompositeBatchResponse) -> None:
        """Compare the frames of ``answer`` with the right answers of ``question``, and count the
        request as right or as wrong; a wrong one adds to ``wrong`` a line about the first wrong
        frame. Where ``answer`` says that the request failed, it is counted as an error."""
        name = question.request.model_id
        if not answer.success:
            self.error(f"{name}: {answer.error}")
            return
        frames = tuple(answer.composited_frames)
        right = frames in question.answers
        with self._lock:
            self.frames += len(frames)
            self.counts["right" if right else "wrong"] += 1
            if right and len(question.answers) > 1:
                self.counts[f"version {question.answers.index(frames)}"] += 1
            if not right and len(self.wrong) < _KEPT:
                self.wrong.append(f"{name}: {self._described(question, frames)}")

    def _described(self, question: Question, frames: Sequence[bytes]) -> str:
        wanted = question.answers[0]
        if len(frames) != len(wanted):
            return f"{len(frames)} frames, asked for were {len(wanted)}"
        for index, (frame, right) in enumerate(zip(frames, wanted, strict=True)):
            if frame != right:
                what = self._whose.get(frame, "of no avatar as a whole")
                return f"frame {index} of {len(frames)} is {what}; wanted was {self._whose[right]}"
        return "frames of another version after the first"


class Clients:
    """Threads that ask a server for one batch after another, from ``start`` to ``stop``, and look
    at the answers."""

    def __init__(
        self, address: str, cast: Cast, tally: Tally, *, count: int, rate: float, seed: int
    ) -> None:
        """``count`` clients ask the server at ``address`` (HOST:PORT) for avatars of ``cast``, and
        count the results in ``tally``. What they ask for is drawn from ``seed``. ``rate`` is how
        many requests a second all of them send together; with 0 each sends the next one as soon as
        it has an answer."""
        self._address = address
        self._cast = cast
        self._tally = tally
        self._pause_s = count / rate if rate else 0.0
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._speak, args=(random.Random(f"{seed} {number}"),))
            for number in range(count)
        ]

    def start(self) -> None:
        """Start the threads: each sends requests for batches, one after the other, and gives the
        answers to the tally, until ``stop``. Returns at once. Call it once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Make each thread end after the request that it has sent, and wait for all of them.
        Nothing is raised where requests failed: those are in the tally."""
        self._stopped.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _connected(self) -> grpc.Channel:
        """A channel of its own, with a connection that no other client closes."""
        return open_channel(
            self._address,
            max_message_bytes=_MAX_MESSAGE_BYTES,
            options=[("grpc.use_local_subchannel_pool", 1)],
        )

    def _speak(self, chance: random.Random) -> None:
        channel = self._connected()
        changing = self._cast.changing
        try:
            next_s = time.monotonic()
            while not self._stopped.is_set():
                often = changing and chance.random() < _CHANGING
                role = chance.choice(changing if often else self._cast.roles)
                question = role.ask(chance, self._cast.speeches)
                try:
                    if self._ask(channel, chance, question):
                        channel.close()
                        channel = self._connected()
                except Exception as error:
                    self._tally.error(f"{role.name}: {error!r}")
                next_s = max(next_s + self._pause_s, time.monotonic() - self._pause_s)
                self._stopped.wait(max(0.0, next_s - time.monotonic()))
        finally:
            channel.close()

    def _ask(self, channel: grpc.Channel, chance: random.Random, question: Question) -> bool:
        """One request; True where the client is to hang up in the middle of it."""
        stub, draw = CompositingServiceStub(channel), chance.random()
        hurried = _CANCELLED + _VANISHING < draw < _CANCELLED + _VANISHING + _HURRIED
        timeout_s = _SOON_S * chance.random() if hurried else _PATIENT_S
        call: Any = stub.InferBatchComposite.future(question.request, timeout=timeout_s)
        if draw < _CANCELLED + _VANISHING:
            time.sleep(_SOON_S * chance.random())
            if draw < _VANISHING:
                self._tally.count("vanished")
                return True
            call.cancel()
        try:
            answer = call.result()
        except grpc.FutureCancelledError:
            self._tally.count("cancelled")
        except grpc.RpcError:
            if hurried and call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._tally.count("too late")
            else:
                self._tally.error(f"{question.request.model_id}: {call.code()}: {call.details()}")
        else:
            self._tally.look_at(question, answer)
        return False
