"""Foreign bytes: valid ones, damaged in the ways in which people and programs damage them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

INTERESTING = (0, 1, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
MOST_EDITS = 6
NEAR = 64
"""What is at the beginning and at the end decides about the rest."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One damage: of which kind, where (in 65,536ths), and with what."""

    kind: int
    place: int
    value: int


def damaged(data: bytes, edits: Sequence[Edit], words: Sequence[bytes], other: bytes) -> bytes:
    """``data`` with ``edits``. ``words`` are texts that the parser knows, ``other`` is another
    valid input."""
    out = bytearray(data)
    for edit in edits:
        at = _place(edit.place, len(out))
        value = edit.value
        count = 1 + value % 9
        match edit.kind:
            case 0 if out:
                out[at % len(out)] = value & 0xFF
            case 1 if out:
                out[at % len(out)] ^= 1 << (value % 8)
            case 2:
                del out[at : at + count]
            case 3:
                out[at:at] = value.to_bytes(4)[: count % 5]
            case 4 if words:
                out[at:at] = words[value % len(words)]
            case 5 if words:
                word = words[value % len(words)]
                out[at : at + len(word)] = word
            case 6:
                del out[at:]
            case 7:
                piece = out[at : at + value % 400]
                out[at:at] = piece * (1 + (value >> 16) % 3)
            case 8:
                number = INTERESTING[value % len(INTERESTING)]
                order = ("little", "big")[(value >> 8) % 2]
                width = (1, 2, 4, 8)[(value >> 12) % 4]
                number &= (1 << 8 * width) - 1
                out[at : at + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
            case 9:
                out[at:] = other[_place(value & 0xFFFF, len(other)) :]
    return bytes(out)


KINDS = 10


def _place(share: int, length: int) -> int:
    """Every third is near the beginning, every sixth near the end."""
    where = share % 6
    if where < 2:
        return share // 6 % (min(NEAR, length) + 1)
    if where == 2:
        return length - share // 6 % (min(NEAR, length) + 1)
    return share * length >> 16


def random_input(chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One input: noise now and then, else one of ``seeds`` with up to six edits."""
    if chance.random() < 0.02:
        return chance.randbytes(chance.randrange(300))
    edits = [
        Edit(chance.randrange(KINDS), chance.randrange(1 << 16), chance.getrandbits(32))
        for _ in range(chance.randint(1, MOST_EDITS))
    ]
    return damaged(chance.choice(seeds), edits, words, chance.choice(seeds))


def inputs(seeds: Sequence[bytes], words: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """The same for Hypothesis, which finds the least damage that is enough."""
    edit = st.builds(
        Edit,
        st.integers(0, KINDS - 1),
        st.integers(0, (1 << 16) - 1),
        st.integers(0, (1 << 32) - 1),
    )
    return st.one_of(
        st.builds(
            lambda data, edits, other: damaged(data, edits, words, other),
            st.sampled_from(seeds),
            st.lists(edit, min_size=1, max_size=MOST_EDITS),
            st.sampled_from(seeds),
        ),
        st.binary(max_size=300),
    )
