"""`lipwire client`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipwire.cli.connecting import (
    DEFAULT_ADDRESS,
    Address,
    Timeout,
    TlsCa,
    TlsCert,
    TlsKey,
    Token,
    UseProxy,
    security_of,
)
from lipwire.cli.recordings import AllowDamaged, AudioTrack, recording_of, warn

if TYPE_CHECKING:
    from lipwire.domain import Float32Array
    from lipwire.rpc.connection import Composited
    from lipwire.rpc.credentials import ClientSecurity
    from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest


class Form(StrEnum):
    """What a request carries: windows made of the speech here, the audio itself, windows and the
    avatar's frames, or (auto) windows where the avatar is known here, else audio."""

    AUTO = "auto"
    WINDOWS = "windows"
    AUDIO = "audio"
    FRAMES = "frames"


LOAD_TIMEOUT_S = 300.0


def command(
    avatar: Annotated[str, typer.Argument(help="An avatar's name on the server.")] = "demo",
    audio: Annotated[
        Path | None,
        typer.Argument(
            help="A recording of speech; - is standard input (default: the bundled sentence).",
            show_default=False,
        ),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    batch: Annotated[int, typer.Option(min=1, max=50, help="Frames in a request.")] = 24,
    limit: Annotated[
        int | None, typer.Option("--batches", min=1, help="Stop after so many requests.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Folder to save the frames to.", show_default=False),
    ] = None,
    form: Annotated[
        Form,
        typer.Option(
            help="windows: speech as the avatar's network hears it, made here. audio: PCM. frames: "
            "windows and the crops of the avatar's frames as float32 (2.4 MB a frame). auto: "
            "windows where the avatar is known here, else audio."
        ),
    ] = Form.AUTO,
    start_frame: Annotated[
        int, typer.Option(min=0, help="Frame of the avatar's background to begin with.")
    ] = 0,
    timeout: Timeout = 60.0,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace frames that are there already.")
    ] = False,
    use_proxy: UseProxy = False,
    token: Token = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    audio_track: AudioTrack = None,
    allow_damaged: AllowDamaged = False,
) -> None:
    """Let an avatar speak through a running server, save the frames, and say where the time went.

    lipwire client demo speech.wav --batch 24 --save frames
    """
    run(
        avatar,
        audio,
        address,
        batch,
        limit,
        save,
        form,
        start_frame,
        timeout,
        force,
        use_proxy,
        security=security_of(token, tls_ca, tls_cert, tls_key),
        audio_track=audio_track,
        allow_damaged=allow_damaged,
    )


def run(
    avatar: str,
    audio: Path | None,
    address: str,
    batch: int,
    limit: int | None = None,
    save: Path | None = None,
    form: Form = Form.AUTO,
    start_frame: int = 0,
    timeout: float = 60.0,
    force: bool = False,
    use_proxy: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    *,
    security: ClientSecurity | None = None,
    audio_track: int | None = None,
    allow_damaged: bool = False,
) -> None:
    """Have the avatar called ``avatar`` say the recording ``audio`` (None: the bundled sentence;
    ``-``: standard input) through the server at ``address`` (HOST:PORT), in requests of ``batch``
    frames, and print where the time went.

    ``limit`` is the most requests that are sent (None: all). ``save`` is a folder for the frames
    (None: they are not kept); with ``force`` it may contain files already, which may be replaced.
    ``form`` is what requests carry (AUTO: windows of the speech where the avatar and its audio
    encoder are here as well, else audio), ``start_frame`` the avatar's frame to begin with, from 0,
    and ``timeout`` the seconds that each request may take. With ``use_proxy``, a proxy named by
    environment variables is used. ``security`` says how the connection is encrypted and who asks
    (None: not encrypted, no key). ``audio_track`` is the number of the recording's track, from 1
    (None: it is chosen). With ``allow_damaged``, a damaged recording is accepted.

    ``stopped()`` is called before each request; where it returns True, the run ends and nothing is
    printed. Raises InvalidInput for arguments and audio that cannot be used, NotFound where
    ``form`` needs the avatar here and it is not, AvatarInvalid where it is broken here,
    StorageFailed where a frame cannot be written, Unavailable where the server cannot be reached,
    and the error with which the server answers.
    """
    from itertools import islice

    from lipwire.cli.live.speech import default_speech
    from lipwire.cli.terminal import progress_bar
    from lipwire.rpc.connection import CompositingConnection
    from lipwire.rpc.credentials import PLAIN

    _check_folder(save, force)
    pcm = _heard(audio or default_speech(), audio_track, allow_damaged)
    with ExitStack() as opened:
        used, frames, requests = _requests(avatar, pcm, batch, form, start_frame, opened)
        connection = opened.enter_context(
            CompositingConnection(address, use_proxy=use_proxy, security=security or PLAIN)
        )
        connection.wait_ready(timeout)
        # An avatar that was never compiled takes longer than any frame; loaded, it is out of the
        # figures.
        connection.load(_name(avatar), max(timeout, LOAD_TIMEOUT_S))
        total = min(frames, limit * batch) if limit else frames
        answers: list[Composited] = []
        written = 0
        with progress_bar("speaking", "frames") as progress:
            for request in islice(requests, limit):
                if stopped():
                    return
                answer = connection.composite(request, timeout)
                answers.append(answer)
                if save is not None:
                    _save(save, written, answer)
                written += len(answer.frames)
                progress(written, total)
    _print(f"{avatar} at {address}, {used.value} sent", batch, answers)
    if save is not None:
        typer.echo(f"{save}: {written} frames")


def _check_folder(save: Path | None, force: bool) -> None:
    from lipwire.domain import InvalidInput

    if save is not None and save.is_dir() and any(save.iterdir()) and not force:
        raise InvalidInput(f"{save} is there already and holds files; --force replaces them")


def _heard(audio: Path, track: int | None, allow_damaged: bool) -> Float32Array:
    """(samples,) float32 at 16 kHz: what the network hears of the recording."""
    from lipwire.api import open_recording
    from lipwire.audio import heard_in_full

    with open_recording(
        recording_of(audio), audio_track=track, allow_damaged=allow_damaged, examine=False
    ) as recording:
        pcm = heard_in_full(recording)
        warn(recording.warnings)
        return pcm


def _requests(
    avatar: str,
    pcm: Float32Array,
    batch: int,
    form: Form,
    start_frame: int,
    opened: ExitStack,
) -> tuple[Form, int, Iterator[CompositeBatchRequest]]:
    """(the form used, frames in all, requests)."""
    from lipwire.audio import AudioEncoder, extract_windows, frame_count
    from lipwire.avatars import Avatar, find_avatar, read_package
    from lipwire.domain import InvalidInput, NotFound
    from lipwire.rpc.requests import requests_of_audio, requests_of_frames, requests_of_windows

    name = _name(avatar)
    try:
        package = None if form is Form.AUDIO else read_package(find_avatar(avatar))
    except NotFound:
        if form is not Form.AUTO:
            raise
        package = None
    encoder_path = package.encoder_path if package else None
    if form is not Form.AUTO and form is not Form.AUDIO and encoder_path is None:
        raise InvalidInput(f"avatar {avatar} has no audio encoder here; use --form audio")
    if package is None or encoder_path is None:
        requests = requests_of_audio(name, pcm, batch, start_frame)
        return Form.AUDIO, frame_count(len(pcm)), requests
    windows = extract_windows(pcm, AudioEncoder.open(encoder_path))
    if form is Form.FRAMES:
        crops = opened.enter_context(Avatar.open(package.path))
        requests = requests_of_frames(name, crops, windows, batch, start_frame)
        return form, len(windows), requests
    return Form.WINDOWS, len(windows), requests_of_windows(name, windows, batch, start_frame)


def _name(avatar: str) -> str:
    """What the server knows the avatar by, where a folder was given: the folder's name."""
    return Path(avatar).absolute().name if "/" in avatar else avatar


def _save(folder: Path, first: int, answer: Composited) -> None:
    from lipwire.domain import StorageFailed
    from lipwire.domain.newfiles import followed

    suffix = {"h264": "h264", "bgr24": "bgr"}.get(answer.frame_format, "jpg")
    try:
        followed(folder).mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(answer.frames, first):
            (folder / f"frame_{index:06d}.{suffix}").write_bytes(frame)
    except OSError as error:
        raise StorageFailed(f"cannot write to {folder}: {error.strerror}") from None


def _print(title: str, batch: int, answers: list[Composited]) -> None:
    """The guide's table: medians and 99th percentiles of a request, and its share of a frame."""
    from rich.console import Console
    from rich.table import Table

    from lipwire.domain import percentile

    frames = sum(len(answer.frames) for answer in answers)
    elapsed_ms = [answer.elapsed_ms for answer in answers]
    table = Table(title=title, title_justify="left")
    for column in (f"milliseconds, batch of {batch}", "median", "p99", "per frame"):
        table.add_column(column, justify="left" if column.startswith("milli") else "right")
    for name, values in (
        ("inference", [answer.inference_ms for answer in answers]),
        ("compositing", [answer.composite_ms for answer in answers]),
        ("audio", [answer.audio_ms for answer in answers]),
        ("gRPC and waiting", [answer.overhead_ms for answer in answers]),
        ("total", elapsed_ms),
    ):
        if name != "audio" or any(values):
            table.add_row(
                name,
                f"{percentile(values, 50):.1f}",
                f"{percentile(values, 99):.1f}",
                f"{sum(values) / frames:.2f}",
            )
    Console().print(table)
    typer.echo(
        f"{frames} frames in {len(answers)} requests, {frames / sum(elapsed_ms) * 1000:.1f} fps"
    )
