"""From a job to the file of its video."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipwire.audio import FileRecording, PcmRecording, Recording, frame_count, redone_if_changed
from lipwire.compose import VideoWriter
from lipwire.domain import (
    FPS,
    SAMPLE_RATE_HZ,
    AvatarChanged,
    Call,
    InvalidInput,
    Unavailable,
)
from lipwire.domain.newfiles import remove
from lipwire.domain.versions import Choose, one_version, who_of
from lipwire.registry import Registry
from lipwire.renders.files import RenderFiles, hash_of
from lipwire.renders.job import SUFFIXES, Job, Video
from lipwire.renders.playlist import write_playlist
from lipwire.renders.served import ServedPerformer
from lipwire.renders.versions import version_of
from lipwire.serving import AudioEncoders, LoadedAvatar
from lipwire.session import Pace, Stopwatch, render_video
from lipwire.speech import Voice
from lipwire.speech.synthesis import said_in_full

_REVISIONS: Final = 3
"""Attempts to have frames and network of one revision."""

Progressed = Callable[[int, int], None]
"""Called with how many frames are made, and how many there will be."""


@dataclass(frozen=True, slots=True)
class Made:
    """A video that was made: ``path``, a file that nothing else uses, its hash and size
    (``video``), and how many ``frames`` it has. ``version`` is that of the avatar that it shows;
    empty where it is not known. ``shared`` is the video's name in the store that servers share,
    where it was downloaded from there; else empty."""

    path: Path
    video: Video
    frames: int
    version: str = ""
    shared: str = ""


class Rendering:
    """Renders jobs with the avatars of a server, each in the thread that asks. Thread-safe."""

    def __init__(
        self,
        files: RenderFiles,
        avatars: Registry[LoadedAvatar],
        encoders: AudioEncoders,
        *,
        voice: Voice | None,
        choose: Choose = one_version,
    ) -> None:
        """``avatars`` gives avatars that were opened for video, ``encoders`` their audio encoders,
        and ``voice`` says texts (None: there is none). A render has as many requests for mouths
        under way at a time as there are cores. ``choose`` says which version of an avatar a job is
        made of."""
        self._choose = choose
        self._files = files
        self._avatars = avatars
        self._encoders = encoders
        self._voice = voice
        self._pace = Pace.for_machine(None)

    def make(self, job: Job, call: Call, progress: Progressed, max_duration_s: float) -> Made:
        """Make the video of ``job``, wait until it is made, and return it. It is made as a part of
        ``call``: when ``call`` ends, the render ends. ``progress(done, frames)`` is called as
        frames are made, with how many are made and how many there will be. The speech, a recording
        or the sound of a text, may last ``max_duration_s`` seconds. The file is in this process's
        folder for new files; the caller has to remove it or move it elsewhere.

        Raises Cancelled where ``call`` ends before, InvalidInput where the recording or the text is
        no speech, or too long, NotFound and AvatarInvalid where the avatar is missing or cannot be
        used, Overloaded where it cannot be loaded now, Unavailable where the voice or the network
        cannot be asked, and StorageFailed where the disk is full. Nothing of the file is left then.
        """
        made = path = self._files.new_file(".mp4")
        try:
            with self._recording(job, max_duration_s) as recording:
                version = self._write(job, recording, path, call, progress)
                frames = frame_count(recording.samples)
            playlist = ""
            if job.order.format == "hls":
                made = self._files.new_file(SUFFIXES["hls"])
                playlist = write_playlist(path, made)
                remove(path)
            video = Video(hash_of(made), made.stat().st_size, playlist)
        except BaseException:
            remove(path)
            remove(made)
            raise
        return Made(made, video, frames, version)

    def _recording(self, job: Job, max_duration_s: float) -> Recording:
        if job.order.text is None:
            recording: Recording = FileRecording(self._files.input(job.id))
        elif self._voice is None:
            raise Unavailable("this server has no voice (any more)")
        else:
            recording = PcmRecording(*said_in_full(self._voice, job.order.text))
        length_s = recording.samples / SAMPLE_RATE_HZ
        if length_s > max_duration_s:
            recording.close()
            raise InvalidInput(
                f"it lasts {length_s:.1f} s; allowed are {max_duration_s:g} (renders.max_duration)"
            )
        return recording

    def _write(
        self, job: Job, recording: Recording, path: Path, call: Call, progress: Progressed
    ) -> str:
        """Returns the version of the avatar that the video shows."""
        who = who_of(job.order.tenant, job.id)
        with self._choose(job.order.avatar, who, "render") as chosen:
            for _ in range(_REVISIONS):
                try:
                    with ExitStack() as stack:
                        loaded = stack.enter_context(self._avatars.use(chosen.name))
                        encoder = stack.enter_context(self._encoders.use(loaded.encoder, call))
                        performer = ServedPerformer(loaded, encoder, call)
                        redone_if_changed(
                            recording,
                            lambda: self._render(job, performer, recording, path, progress),  # noqa: B023
                        )
                        return version_of(loaded, performer.model_revision)
                except AvatarChanged:
                    self._avatars.load(chosen.name)
            raise Unavailable(f"avatar {job.order.avatar} is being replaced; try again later")

    def _render(
        self,
        job: Job,
        performer: ServedPerformer,
        recording: Recording,
        path: Path,
        progress: Progressed,
    ) -> None:
        avatar = performer.avatar
        writer = VideoWriter(
            path,
            avatar.width,
            avatar.height,
            FPS,
            audio_rate_hz=recording.rate_hz,
            audio_channels=recording.channels,
        )
        with writer:
            render_video(
                performer,
                recording,
                writer,
                start_frame=job.order.start_frame,
                pace=self._pace,
                stopwatch=Stopwatch(),
                progress=progress,
            )
