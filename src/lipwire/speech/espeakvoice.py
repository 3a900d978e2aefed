"""The voice of the program espeak-ng: over a hundred languages, none of them natural."""

import re
import shutil
import struct
import subprocess
from collections.abc import Generator
from typing import Final

from lipwire.audio import from_int16
from lipwire.domain import DependencyMissing, Float32Array, InvalidInput, Unavailable
from lipwire.speech.sentences import sentences
from lipwire.speech.synthesis import SpokenPiece, trimmed

PROGRAM: Final = "espeak-ng"
_WORDS_A_MINUTE: Final = 165
"""At speed 1."""
_LANGUAGE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,14}(-[A-Za-z0-9]{1,15}){0,4}")
_STANDARD_INPUT_IS_UTF8: Final = ("-b", "1")


class EspeakVoice:
    """A ``Voice`` that is the program espeak-ng. A process is started for each sentence, without a
    shell; the text is its standard input. For use by many threads."""

    name: Final = PROGRAM

    def __init__(self, *, language: str, speed: float = 1.0, timeout_s: float = 10.0) -> None:
        """``language`` is as ``espeak-ng --voices`` has it: en-us, de, cmn. ``speed`` is a factor,
        0.5 to 2. A sentence may take ``timeout_s`` seconds. Raises DependencyMissing where there is
        no such program, InvalidInput for text that cannot name a language; ``prepare`` finds out
        whether the program has it."""
        program = shutil.which(PROGRAM)
        if program is None:
            raise DependencyMissing(
                f"the program {PROGRAM} is not installed; Debian and Ubuntu have a package of that"
                " name"
            )
        if not _LANGUAGE.fullmatch(language):
            raise InvalidInput(f"language is {language[:50]!r}; allowed are such as en-us, de, cmn")
        words = str(round(_WORDS_A_MINUTE * speed))
        self._command = [
            program, "-v", language, "-s", words, *_STANDARD_INPUT_IS_UTF8, "--stdin", "--stdout",
        ]  # fmt: skip
        self._language = language
        self._timeout_s = timeout_s
        self._known = False

    def prepare(self) -> None:
        """Run the program once, to see that it works and has the language; does nothing where that
        was seen before. Raises InvalidInput where it does not have the language, Unavailable where
        it does not run."""
        if not self._known:
            self._run("")
            self._known = True

    def say(self, text: str) -> Generator[SpokenPiece, None, None]:
        """Return an iterator of the sound of ``text``, sentence by sentence, each as one piece that
        is made when it is asked for. Raises InvalidInput at once where ``text`` has more than
        10,000 characters or nothing to say; while it is iterated, Unavailable where the program
        fails or takes longer than ``timeout_s``, and InvalidInput where it does not have the
        language."""
        return self._spoken(sentences(text))

    def _spoken(self, said: list[str]) -> Generator[SpokenPiece, None, None]:
        for sentence in said:
            # [[ and ]] would be phonemes.
            made = self._run(sentence.replace("[[", "[ [").replace("]]", "] ]"))
            pcm, rate_hz = samples_of(made)
            pcm = trimmed(pcm, rate_hz)
            if len(pcm):
                yield SpokenPiece(pcm, rate_hz, sentence)

    def _run(self, text: str) -> bytes:
        try:
            done = subprocess.run(
                self._command,
                input=text.encode(),
                capture_output=True,
                timeout=self._timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"{PROGRAM} did not end; allowed are {self._timeout_s:g} s a sentence"
            ) from None
        except OSError as error:
            raise Unavailable(f"{PROGRAM} cannot be run: {error.strerror}") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()
            if "voice does not exist" in said:
                raise InvalidInput(
                    f"{PROGRAM} has no language {self._language}; `{PROGRAM} --voices` lists those"
                    " that it has"
                )
            raise Unavailable(f"{PROGRAM} failed: {said.splitlines()[-1][:200] if said else '?'}")
        return done.stdout


def samples_of(wav: bytes) -> tuple[Float32Array, int]:
    """Return (the samples of a WAV file of 16-bit mono, (n,) float32 in [-1, 1]; their rate in Hz).
    ``wav`` is the file's bytes.

    Everything behind the header counts as samples, whatever length the header says: a program that
    writes to a pipe does not know it beforehand. Raises Unavailable, with a message about
    espeak-ng, where ``wav`` is no such file.
    """
    at, rate_hz = 12, 0
    while wav[:4] == b"RIFF" and at + 8 <= len(wav):
        kind, size = struct.unpack_from("<4sI", wav, at)
        at += 8
        if kind == b"fmt " and at + 16 <= len(wav):
            form, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", wav, at)
            if (form, channels, bits) != (1, 1, 16):
                break
        elif kind == b"data" and rate_hz:
            data = wav[at : len(wav) - (len(wav) - at) % 2]
            return from_int16(data), rate_hz
        at += size + size % 2
    raise Unavailable(f"{PROGRAM} gave {len(wav)} bytes that are no 16-bit mono WAV file")
