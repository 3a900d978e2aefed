"""The voice that a configuration asks for."""

import pytest
from pydantic import SecretStr

from lipwire.config.compositing import SpeechSettings
from lipwire.domain import DependencyMissing
from lipwire.speech import choosing, hibarivoice, open_voice
from lipwire.speech.espeakvoice import EspeakVoice
from lipwire.speech.hibarivoice import HibariVoice
from lipwire.speech.openaivoice import OpenAiVoice


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether hibari is there, to be changed."""
    there = [True]
    for module in (choosing, hibarivoice):
        monkeypatch.setattr(module, "hibari_is_installed", lambda: there[0])
    return there


def test_without_a_word_it_is_hibari_where_that_is_installed(installed: list[bool]) -> None:
    assert isinstance(open_voice(SpeechSettings()), HibariVoice)
    installed[0] = False
    assert open_voice(SpeechSettings()) is None
    with pytest.raises(DependencyMissing, match="hibari is not installed"):
        open_voice(SpeechSettings(voice="hibari"))


def test_nobody_speaks_where_none_is_asked_for(installed: list[bool]) -> None:
    assert open_voice(SpeechSettings(voice="none")) is None


def test_a_server_is_asked_as_configured() -> None:
    voice = open_voice(
        SpeechSettings(
            voice="openai", url="http://127.0.0.1:9/v1", api_key=SecretStr("hush"), speed=1.5
        )
    )
    assert isinstance(voice, OpenAiVoice)
    assert voice._headers["Authorization"] == "Bearer hush"
    assert voice._asked["speed"] == 1.5


def test_espeak_is_asked_whether_it_has_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(EspeakVoice, "_run", lambda self, text: asked.append(self._language))
    assert isinstance(open_voice(SpeechSettings(voice="espeak-ng", language="de")), EspeakVoice)
    assert asked == ["de"]
