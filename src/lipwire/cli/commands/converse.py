"""`lipwire converse`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lipwire.cli.connecting import (
    DEFAULT_ADDRESS,
    TlsCa,
    TlsCert,
    TlsKey,
    Token,
    UseProxy,
    security_of,
)
from lipwire.cli.recordings import AllowDamaged, AudioTrack
from lipwire.cli.stopping import Terminated

if TYPE_CHECKING:
    from lipwire.cli.live.figures import Figures
    from lipwire.cli.live.keeping import SessionKeeper
    from lipwire.cli.live.speech import SpeechSender
    from lipwire.rpc.moving import MovingStream
    from lipwire.rpc.received import Received

_TAIL_MS: Final = 400
"""How long the avatar is shown at rest when it has spoken."""
_ROUNDING_MS: Final = 2.0
"""By how much the lengths of speech that a session tells may be off."""


class Pace(StrEnum):
    """How fast speech is sent: as it is spoken (live) or at once (fast)."""

    LIVE = "live"
    FAST = "fast"


def command(
    avatar: Annotated[str, typer.Argument(help="An avatar's name on the server.")] = "demo",
    audio: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE|-",
            help="What it says: a recording, or - for standard input (default: the bundled "
            "sentence).",
            show_default=False,
        ),
    ] = None,
    address: Annotated[
        str, typer.Option("--address", "-a", help="The server, host:port.")
    ] = DEFAULT_ADDRESS,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A video to write of the session (.mp4, .m4v, .mov): what a person would see and "
            "hear. Where a frame was dropped, the one before stays.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the frames, as frame_MILLISECONDS.jpg, and for sound.wav.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace what is there already.")
    ] = False,
    pace: Annotated[
        Pace,
        typer.Option(
            help="fast: all speech is sent at once, as a program that makes speech has it. live: "
            "it is sent as it is spoken, as from a microphone."
        ),
    ] = Pace.FAST,
    interrupt_after: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Interrupt the speech when so many seconds of it were said.",
            show_default=False,
        ),
    ] = None,
    lookahead_ms: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="How much of what follows is heard before a mouth is made, up to 452.5: less "
            "shows live speech earlier, and worse.",
            show_default="452.5",
        ),
    ] = None,
    only_speech: Annotated[
        bool,
        typer.Option(
            "--gate/--no-gate",
            help="Let the mouth rest in noise and music; --no-gate moves it to everything.",
        ),
    ] = True,
    start_frame: Annotated[
        int, typer.Option(min=0, help="Frame of the avatar's background to begin with.")
    ] = 0,
    rate: Annotated[
        int | None,
        typer.Option(
            min=1000,
            max=768_000,
            help="The speech is bare samples, 16 bits, little endian, so many a second, and is "
            "sent as it comes. Without it a recording is read to its end first.",
            show_default=False,
        ),
    ] = None,
    channels: Annotated[
        int, typer.Option(min=1, max=64, help="Channels of bare samples (--rate).")
    ] = 1,
    use_proxy: UseProxy = False,
    token: Token = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    audio_track: AudioTrack = None,
    allow_damaged: AllowDamaged = False,
) -> None:
    """Talk to an avatar in a live session of a running server (lipwire serve).

    lipwire converse demo speech.wav -o talk.mp4

    The avatar says what FILE holds and rests before and after, as somebody who watches would see
    it; what happens is printed as it happens, with figures at the end. A microphone:

    arecord -t raw -f S16_LE -r 16000 | lipwire converse demo - --rate 16000 -o talk.mp4

    Ctrl-C ends the session; what came until then is kept.
    """
    from lipwire.cli.live.figures import Figures
    from lipwire.cli.live.keeping import SessionKeeper
    from lipwire.cli.live.speech import SpeechSender, default_speech, open_speech
    from lipwire.rpc.conversing import AvatarConnection
    from lipwire.session.live import SessionSettings

    _check_targets(out, save, force)
    settings = SessionSettings(
        start_frame=start_frame,
        gate=only_speech,
        **({} if lookahead_ms is None else {"lookahead_ms": lookahead_ms}),  # type: ignore[arg-type]
    )
    name = Path(avatar).absolute().name if "/" in avatar else avatar
    stopped: BaseException | None = None
    with ExitStack() as stack:
        source = stack.enter_context(
            open_speech(
                audio or default_speech(),
                rate_hz=rate,
                channels=channels,
                audio_track=audio_track,
                allow_damaged=allow_damaged,
            )
        )
        server = stack.enter_context(
            AvatarConnection(
                address, use_proxy=use_proxy, security=security_of(token, tls_ca, tls_cert, tls_key)
            )
        )
        figures = Figures(time.monotonic())
        session = server.converse_anywhere(name, settings)
        sender = stack.enter_context(SpeechSender(source, live=pace is Pace.LIVE))
        stack.enter_context(session)
        typer.echo(
            f"a session with {name} at {address}: {session.width}x{session.height},"
            f" {session.frame_format}, sound at {session.sound_rate_hz} Hz"
        )
        keeper = stack.enter_context(SessionKeeper(session, folder=save, video=out))
        try:
            sender.start(session)
            _follow(session, sender, figures, keeper, interrupt_after)
        except (KeyboardInterrupt, Terminated) as asked:
            stopped = asked
        sender.stop()
        session.end()
    _print_figures(figures, sender.began_s)
    if save is not None:
        typer.echo(f"{save}: {keeper.frames} frames, sound.wav")
    if out is not None:
        typer.echo(str(out))
    if stopped is not None:
        raise stopped


def _check_targets(out: Path | None, save: Path | None, force: bool) -> None:
    from lipwire.domain import InvalidInput
    from lipwire.domain.filekinds import VIDEO_SUFFIXES

    if save is not None and save.is_dir() and any(save.iterdir()) and not force:
        raise InvalidInput(f"{save} is there already and holds files; --force replaces them")
    if out is None:
        return
    if out.suffix.lower() not in VIDEO_SUFFIXES:
        raise InvalidInput(
            f"cannot write {out}: allowed are names that end in {', '.join(VIDEO_SUFFIXES)}"
        )
    if out.exists() and not force:
        raise InvalidInput(f"{out} is there already; --force replaces it")


class _Talk:
    """How far the session is with what was sent to it."""

    def __init__(self, interrupt_after_s: float | None) -> None:
        self._interrupt_after_s = interrupt_after_s
        self._began_ms: int | None = None
        self._over_ms: int | None = None
        self._accounted_ms = 0.0
        self._ended = 0
        self._interrupted = False

    def take(self, received: Received) -> None:
        """Look at what came."""
        from lipwire.session.live import SpeechBegan, SpeechEnded

        if isinstance(received, SpeechBegan) and self._began_ms is None:
            self._began_ms = received.at_ms
        elif isinstance(received, SpeechEnded):
            self._ended += 1
            self._accounted_ms += received.spoken_ms + received.left_ms
            self._over_ms = received.at_ms

    def interrupts(self, at_ms: int) -> bool:
        """Whether it is to be interrupted at this time; once."""
        if self._interrupt_after_s is None or self._began_ms is None or self._interrupted:
            return False
        self._interrupted = at_ms >= self._began_ms + self._interrupt_after_s * 1000
        return self._interrupted

    def over(self, sender: SpeechSender, at_ms: int) -> bool:
        """Whether all that was sent was said, or interrupted, and the avatar has rested a
        moment."""
        left_ms = sender.sent_ms - self._accounted_ms
        if self._interrupted:
            if self._over_ms is None:
                return False
        elif not sender.done or left_ms > _ROUNDING_MS * (self._ended + 1):
            return False
        return at_ms >= (self._over_ms or 0) + _TAIL_MS


def _follow(
    session: MovingStream,
    sender: SpeechSender,
    figures: Figures,
    keeper: SessionKeeper,
    interrupt_after_s: float | None,
) -> None:
    """Take what the session sends until all was said. Raises Unavailable where it ends before, and
    what sending the speech has failed with."""
    from lipwire.cli.live.figures import told
    from lipwire.domain import Unavailable
    from lipwire.domain.wording import escaped
    from lipwire.rpc.received import Ended
    from lipwire.session.live import LiveFrame, Sound

    talk = _Talk(interrupt_after_s)
    for received in session:
        figures.take(received, time.monotonic())
        talk.take(received)
        if line := told(received):
            typer.echo(escaped(line))
        if isinstance(received, Ended):
            raise Unavailable(f"the session ended before all was said: {received.reason}")
        if not isinstance(received, LiveFrame | Sound):
            continue
        keeper.put(received)
        if sender.error is not None:
            raise sender.error
        if talk.interrupts(received.at_ms):
            sender.stop()
            session.interrupt()
        if talk.over(sender, received.at_ms):
            return


def _print_figures(figures: Figures, speech_sent_s: float | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for what, value in figures.rows(speech_sent_s):
        table.add_row(what, value)
    Console().print(table)
