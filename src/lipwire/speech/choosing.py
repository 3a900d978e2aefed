"""Which voice it is that says texts."""

from lipwire.config.compositing import SpeechSettings
from lipwire.domain import InvalidInput
from lipwire.speech.espeakvoice import EspeakVoice
from lipwire.speech.hibarivoice import HibariVoice, hibari_is_installed
from lipwire.speech.openaivoice import OpenAiVoice
from lipwire.speech.synthesis import Voice


def open_voice(settings: SpeechSettings) -> Voice | None:
    """Return the voice that ``settings`` ask for; None where they ask for ``none``, or name no
    voice and hibari is not installed. The program espeak-ng is run once, to see that it works; the
    package hibari is not loaded yet, and a server with OpenAI's protocol is not asked yet. There is
    nothing to close.

    Raises DependencyMissing where the voice's program or package is not installed, InvalidInput for
    a language that espeak-ng does not have and for a URL or API key that cannot be one, and
    Unavailable where espeak-ng does not run.
    """
    kind = settings.voice
    if kind is None:
        kind = "hibari" if hibari_is_installed() else "none"
    if kind == "hibari":
        return HibariVoice(speed=settings.speed)
    if kind == "espeak-ng":
        voice = EspeakVoice(
            language=settings.language, speed=settings.speed, timeout_s=settings.timeout_seconds
        )
        voice.prepare()
        return voice
    if kind == "openai":
        if settings.url is None:
            raise InvalidInput("speech.url is missing; the voice openai needs it")
        key = settings.api_key
        return OpenAiVoice(
            url=settings.url,
            model=settings.model,
            voice_name=settings.voice_name,
            api_key=None if key is None else key.get_secret_value(),
            speed=settings.speed,
            timeout_s=settings.timeout_seconds,
        )
    return None
