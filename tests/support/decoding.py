"""What the decoder is given, counted."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Any, Self

import pytest

from lipwire.audio.recordings.containers import open_container

_PLACE = "lipwire.audio.recordings.reading.open_container"


class Decoding:
    """Counts, while it is entered, how often each packet of each opened file is decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.files: list[Counter[object]] = []
        """One for each time that a file was opened and decoded: how often, by the packet."""

    def once(self, files: int = 1) -> bool:
        """Whether so many files were decoded, each of them once, and no packet twice."""
        return [set(counts.values()) for counts in self.files] == [{1}] * files

    def __enter__(self) -> Self:
        self._patch.setattr(_PLACE, self._open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patch.setattr(_PLACE, open_container)

    def _open(self, source: Any) -> Any:
        return _Container(open_container(source), self.files)


class _Container:
    def __init__(self, container: Any, files: list[Counter[object]]) -> None:
        self._container = container
        self._files = files

    def demux(self, stream: Any) -> Any:
        counts: Counter[object] = Counter()
        self._files.append(counts)
        for packet in self._container.demux(stream):
            yield _Packet(packet, counts)

    def __enter__(self) -> Self:
        self._container.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._container.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)


class _Packet:
    def __init__(self, packet: Any, counts: Counter[object]) -> None:
        self._packet = packet
        self._counts = counts

    def decode(self) -> Any:
        self._counts[self._packet.pos, self._packet.dts, self._packet.size] += 1
        return self._packet.decode()

    def __bytes__(self) -> bytes:
        return bytes(self._packet)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._packet, name)
