"""Texts that avatars say."""

from __future__ import annotations

from pydantic import ValidationError

from lipwire.config.compositing import SpeechSettings
from lipwire.domain import DependencyMissing, Float32Array, InvalidInput
from lipwire.speech import Voice, open_voice
from lipwire.speech.synthesis import said_in_full


def sound_of(
    text: str, voice: str | Voice | None, speed: float, language: str
) -> tuple[Float32Array, int]:
    """Return (``text`` as sound, (n,) float32 in [-1, 1], mono; its rate in Hz), when all of it is
    made.

    ``voice`` is the name of a voice ("hibari" or "espeak-ng"), a ``Voice``, or None for hibari;
    ``speed``, a factor (0.5 to 2), and ``language``, for espeak-ng, count only for a name or None.
    Raises DependencyMissing where the voice is not installed, Unavailable or DeadlineExceeded where
    it fails, InvalidInput for arguments out of range, a language that espeak-ng does not have, and
    a text with nothing to say or with more than 10,000 characters.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"text is given as {type(text).__name__}; allowed: str")
    if voice is None or isinstance(voice, str):
        try:
            settings = SpeechSettings.model_validate(
                {"voice": voice, "speed": speed, "language": language}
            )
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            name = ".".join(map(str, wrong["loc"])) or "voice"
            raise InvalidInput(f"{name} is {wrong['input']!r}: {wrong['msg']}") from None
        found = open_voice(settings)
        if found is None:
            raise DependencyMissing("there is no voice; `pip install lipwire[speech]` brings one")
        voice = found
    return said_in_full(voice, text)
