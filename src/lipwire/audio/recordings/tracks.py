"""Which of a file's audio tracks is meant."""

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from lipwire.domain import InvalidInput


def choose_track(container: InputContainer, number: int | None, name: str) -> AudioStream:
    """Return audio track ``number`` of the opened ``container``, counted from 1 among its audio
    tracks.

    Where ``number`` is None, the first track that is marked as default is chosen, as players do, or
    else the first of all. Raises InvalidInput where there is no such track, or no audio track at
    all; the message contains ``name``, the name of the recording, and lists the tracks.
    """
    tracks = container.streams.audio
    if not tracks:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise InvalidInput(f"{name} holds no audio track, only {kinds}")
    if number is None:
        marked = (track for track in tracks if track.disposition & Disposition.default)
        return next(marked, tracks[0])
    if not 1 <= number <= len(tracks):
        there = "; ".join(f"{index} is {_describe(track)}" for index, track in enumerate(tracks, 1))
        raise InvalidInput(f"{name} has no audio track {number}; there are: {there}")
    return tracks[number - 1]


def _describe(track: AudioStream) -> str:
    context = track.codec_context
    facts = [context.name if context else "of an unknown codec"]
    if context is not None and context.sample_rate:
        facts += [f"{context.sample_rate} Hz", context.layout.name]
    language = track.metadata.get("language", "und")
    if language != "und":
        facts.append(f"language {language}")
    if title := track.metadata.get("title", track.metadata.get("handler_name", "")):
        facts.append(f"title {title!r}")
    if track.disposition & Disposition.default:
        facts.append("the default")
    return ", ".join(facts)
