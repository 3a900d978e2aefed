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
    """Return ``text`` as sound, (n,) float32 in [-1, 1], and its rate. The arguments, and what is
    raised, are those of ``lipwire.api.say``."""
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
