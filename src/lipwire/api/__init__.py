"""Lipwire from Python: open an avatar, let it speak, take the frames.

    >>> from lipwire.api import open_avatar
    >>> with open_avatar("demo") as avatar:  # doctest: +SKIP
    ...     for frame in avatar.speak("speech.wav"):
    ...         show(frame.bgr)  # (height, width, 3) uint8

or straight to a file:

    >>> from lipwire.api import render
    >>> render("demo", "speech.wav", "talking.mp4")  # doctest: +SKIP

or a text, which a voice says (``pip install lipwire[speech]``):

    >>> from lipwire.api import say
    >>> say("demo", "Good morning.", "morning.mp4")  # doctest: +SKIP

or live, through a server:

    >>> from lipwire.api import connect
    >>> with connect("localhost:50052") as server:  # doctest: +SKIP
    ...     session = server.converse("demo")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lipwire.api.arguments import Audio, Output, PathLike, Precision, recording_of
from lipwire.api.results import RenderResult
from lipwire.api.talkingavatar import Frame, TalkingAvatar
from lipwire.audio import Recording
from lipwire.avatars import DEFAULT_QUALITY
from lipwire.compose import Writable, X264Preset
from lipwire.domain import SAMPLE_RATE_HZ, CompileProgress, Progress

if TYPE_CHECKING:
    from lipwire.api.live import AvatarConnection, ClientSecurity
    from lipwire.speech import Voice

__all__ = [
    "Audio",
    "Frame",
    "Output",
    "Precision",
    "Recording",
    "RenderResult",
    "TalkingAvatar",
    "connect",
    "open_avatar",
    "open_recording",
    "render",
    "say",
]


def open_avatar(
    name_or_path: PathLike,
    *,
    outputs: tuple[Output, ...] = (),
    jpeg_quality: int = DEFAULT_QUALITY,
    audio_encoder: PathLike | None = None,
    threads: int | None = None,
    precision: Precision = "auto",
    progress: CompileProgress | None = None,
) -> TalkingAvatar:
    """Open an avatar by its name or its folder, compiling it first where that was never done. The
    caller closes it; a context manager.

    ``name_or_path`` is a path where it is no str, contains a slash or is ".", ".." or "~"; else a
    name, which is looked for in the folders of avatars (``lipwire.avatars.search_folders``).
    ``outputs`` are the forms of frames that will be asked for ("bgr", "jpeg", "i420"); what they
    need is compiled now and not at the first frame. ``jpeg_quality`` is 1 to 100. ``audio_encoder``
    is an ONNX file that replaces the package's own. ``threads`` is how many cores the network may
    use, None for all of them. With ``precision`` "auto", speech of 10 s or more is computed in
    bfloat16 where the processor has units for bfloat16, where that is faster, and where a trial
    gives mouths that look the same; with "float32" it never is. ``progress(done, total, what)`` is
    called while something is compiled: how much is done of how much, and what, as text; ``total``
    is 0 where it is not known.

    >>> with open_avatar(avatar_path, outputs=("jpeg",), jpeg_quality=90) as avatar:
    ...     first = next(avatar.speak(speech, rate_hz=16_000))
    ...     first.bgr.shape == (avatar.height, avatar.width, 3)
    ...     first.jpeg()[:3]
    True
    b'\\xff\\xd8\\xff'

    Raises NotFound where there is no such avatar, AvatarInvalid where its files are not right,
    InvalidInput for other arguments, and StorageFailed where the compiled form can be written
    nowhere, each with one line that says what is wrong.
    """
    return TalkingAvatar(
        name_or_path,
        outputs=outputs,
        jpeg_quality=jpeg_quality,
        audio_encoder=audio_encoder,
        threads=threads,
        precision=precision,
        progress=progress,
    )


def render(
    avatar: PathLike,
    audio: Audio,
    out: PathLike | Writable,
    *,
    rate_hz: int = SAMPLE_RATE_HZ,
    audio_track: int | None = None,
    allow_damaged: bool = False,
    start_frame: int = 0,
    preset: X264Preset = "veryfast",
    crf: int = 18,
    progress: Progress | None = None,
) -> RenderResult:
    """Open ``avatar``, write a video of it saying ``audio`` to ``out``, and close it. Returns what
    was made and how fast, when the video is finished.

    >>> result = render(avatar_path, speech, out / "talking.mp4", rate_hz=16_000)
    >>> result.path.name, result.frames
    ('talking.mp4', 25)

    ``avatar`` is its name or folder. ``audio`` is a file (a path, an open binary file or the bytes
    of one), what ``open_recording`` gave, or samples, (n,) or (n, channels), int16 or float with
    full scale 1.0, whose rate is ``rate_hz``; ``audio_track`` is the number of a file's audio
    track, from 1 (None: the default one), and ``allow_damaged`` has a damaged file rendered with
    silence where something is missing. ``out`` is a file ending in .mp4, .m4v or .mov, which is
    replaced, or an open binary file, which stays open. ``start_frame`` (0 or above) is the avatar's
    frame to begin with. ``preset`` is x264's, slower ones make smaller files; ``crf`` its quality,
    0 (best) to 51. ``progress(done, total)`` is called with numbers of frames while they are made.

    Raises NotFound and AvatarInvalid where there is no such avatar or it is broken, InvalidInput
    for audio or settings that cannot work, StorageFailed where ``out`` cannot be written,
    BrokenPipeError where nobody reads an open file any more. On an error a file that was at ``out``
    is as it was.
    """
    with open_avatar(avatar, outputs=("i420",)) as opened:
        return opened.render(
            audio,
            out,
            rate_hz=rate_hz,
            audio_track=audio_track,
            allow_damaged=allow_damaged,
            start_frame=start_frame,
            preset=preset,
            crf=crf,
            progress=progress,
        )


def say(
    avatar: PathLike,
    text: str,
    out: PathLike | Writable,
    *,
    voice: str | Voice | None = None,
    speed: float = 1.0,
    language: str = "en-us",
    start_frame: int = 0,
    preset: X264Preset = "veryfast",
    crf: int = 18,
    progress: Progress | None = None,
) -> RenderResult:
    """Open ``avatar``, write a video of it saying ``text`` to ``out``, and close it. Returns what
    was made and how fast, when the video is finished.

    >>> say("demo", "Good morning.", "morning.mp4")  # doctest: +SKIP

    ``voice`` is "hibari" (English, of ``lipwire[speech]``), "espeak-ng" (the program of that name,
    in ``language``, one of those that ``espeak-ng --voices`` lists), or a ``lipwire.speech.Voice``,
    for which ``speed`` and ``language`` do not count; None is hibari. ``speed`` is a factor, 0.5 to
    2. ``avatar`` is its name or folder, and ``out`` a file ending in .mp4, .m4v or .mov, which is
    replaced, or an open binary file, which stays open. ``start_frame`` (0 or above) is the avatar's
    frame to begin with. ``preset`` is x264's, slower ones make smaller files; ``crf`` its quality,
    0 (best) to 51. ``progress(done, total)`` is called with numbers of frames while they are made.

    Raises DependencyMissing where the voice is not installed, Unavailable or DeadlineExceeded where
    it fails, InvalidInput for a text with nothing to say or with more than 10,000 characters and
    for settings that cannot work, NotFound and AvatarInvalid where there is no such avatar or it is
    broken, StorageFailed where ``out`` cannot be written, BrokenPipeError where nobody reads an
    open file any more.
    """
    from lipwire.api.saying import sound_of

    pcm, rate_hz = sound_of(text, voice, speed, language)
    return render(
        avatar,
        pcm,
        out,
        rate_hz=rate_hz,
        start_frame=start_frame,
        preset=preset,
        crf=crf,
        progress=progress,
    )


def open_recording(
    audio: Audio,
    *,
    rate_hz: int = SAMPLE_RATE_HZ,
    audio_track: int | None = None,
    allow_damaged: bool = False,
    examine: bool = True,
) -> Recording:
    """Open a recording, go through it once, and keep it open; a context manager.

    It can be spoken and rendered in place of ``audio``, also several times, and says what was
    noticed in it:

    >>> with open_recording(speech, rate_hz=16_000) as recording:
    ...     recording.samples / 16_000, recording.warnings
    (1.0, ())

    ``audio`` is a file (a path, an open binary file or the bytes of one) or samples, (n,) or (n,
    channels), int16 or float with full scale 1.0, whose rate is ``rate_hz``; files say theirs.
    ``audio_track`` is the number of a file's audio track, from 1; None for the default one. A
    damaged file is refused, or, with ``allow_damaged``, taken with silence where something is
    missing. Holes in the time stamps of a file (pauses, lost packets) are silence, of up to ten
    minutes each. A pipe is read to its end, into a temporary file. Raises InvalidInput for audio
    that cannot be decoded or lasts more than four hours, StorageFailed where a pipe cannot be
    copied.

    With ``examine`` False only the first half minute of a file is decoded, and the rest when it is
    spoken or rendered for the first time: what is wrong there is raised and noticed then, and until
    then ``samples`` is what the file says.
    """
    recording = recording_of(audio, rate_hz, audio_track, allow_damaged)
    if examine:
        try:
            recording.examine()
        except BaseException:
            recording.close()
            raise
    return recording


def connect(
    address: str, *, use_proxy: bool = False, security: ClientSecurity | None = None
) -> AvatarConnection:
    """Return a connection to a server with live sessions, such as ``lipwire serve`` starts; also
    ``lipwire.connect``. It is a context manager, for use by many threads.

    >>> with connect("localhost:50052") as server:  # doctest: +SKIP
    ...     with server.converse("demo") as session:
    ...         session.push(speech, rate_hz=16_000)
    ...         session.end_of_speech()
    ...         for received in session:  # LiveFrame, Sound, SpeechEnded, ... (lipwire.api.live)
    ...             ...

    ``address`` is host:port. With ``use_proxy`` the variables ``grpc_proxy``, ``https_proxy``,
    ``http_proxy`` and ``no_proxy`` count; else no proxy is used. ``security`` says how the
    connection is encrypted, and has the API key or token that is sent:
    ``ClientSecurity(ClientTls(ca=Path("ca.crt")), key)`` (both in ``lipwire.api.live``); with None
    nothing is encrypted and nothing sent. It connects when the first session is begun, so that a
    server that is missing is reported only then. Raises InvalidInput where ``address`` cannot be an
    address, a file cannot be read, or a token would go to another machine without encryption.
    """
    from lipwire.api.live import PLAIN, AvatarConnection

    return AvatarConnection(address, use_proxy=use_proxy, security=security or PLAIN)
