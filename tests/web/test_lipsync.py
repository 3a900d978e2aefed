"""Sound against picture as a viewer has them, by an avatar that flashes when it beeps."""

import itertools
import random
import time
from typing import Final

import numpy as np
import pytest
from tests.support.flashing import BEEP_EVERY_S, SETTINGS, FlashingAvatar, beeping, real_threads
from tests.support.waiting import until
from tests.support.webparts import WebHouse
from tests.support.webviewer import WebViewer

BAR_S: Final = 0.005
"""A fault of half a frame of sound is more."""
BEEPS: Final = 5
QUIET_S: Final = 0.5
FRAME: Final = 3600
"""40 ms at 90 kHz."""


def flashes(viewer: WebViewer) -> list[int]:
    """Time stamps (RTP, 90 kHz) of the first white pictures, where the one before was not left
    out."""
    white = [(one.pts, one.to_ndarray(format="gray").mean() > 128) for one in viewer.pictures]
    return [
        viewer.rtp_origin("video") + pts
        for (before_pts, before), (pts, now) in itertools.pairwise(white)
        if now > before and pts - before_pts == FRAME
    ]


def onsets(viewer: WebViewer) -> list[int]:
    """Time stamps (RTP, 48 kHz) of the first samples of beeps."""
    found, loud_before = [], -(2**40)
    for sound in list(viewer.sounds):
        samples = np.abs(sound.to_ndarray().reshape(-1, len(sound.layout.channels))[:, 0])
        for loud in np.flatnonzero(samples > 3000):
            at = sound.pts + int(loud)
            if at - loud_before > QUIET_S * 48_000:
                found.append(viewer.rtp_origin("audio") + at)
            loud_before = at
    return found


def at_s(reports: list[tuple[int, int]], stamp: int, rate_hz: int) -> list[float]:
    """When that was, by each of the sender's reports, in seconds (RFC 3550, section 6.4.1)."""
    return [ntp / 2**32 + ((stamp - rtp + 2**31) % 2**32 - 2**31) / rate_hz for ntp, rtp in reports]


@pytest.mark.slow
def test_by_the_senders_reports_a_flash_comes_with_its_beep() -> None:
    """However long it takes to compose a frame."""
    chance = random.Random(1)
    avatar = FlashingAvatar(on_compose=lambda position: time.sleep(chance.uniform(0, 0.03)))
    with (
        real_threads() as threads,
        WebHouse(threads=threads, open_avatar=lambda name: avatar.flashing(64, 64)) as house,
        WebViewer(house) as viewer,
    ):
        session = house.in_loop(house.hub.open("anna", SETTINGS))
        viewer.view(f"/whep/anna?session={session.id}")
        until(lambda: viewer.pictures and viewer.sounds)
        with beeping(session, 60):
            until(
                lambda: len(flashes(viewer)) > BEEPS and len(onsets(viewer)) > BEEPS,
                seen=lambda: (len(viewer.pictures), flashes(viewer), onsets(viewer)),
            )
            until(lambda: min(map(len, viewer.reports.values())) >= 3)
        offsets_s = []
        for flash, beep in itertools.product(flashes(viewer), onsets(viewer)):
            seen = at_s(viewer.reports["video"], flash, 90_000)
            heard = at_s(viewer.reports["audio"], beep, 48_000)
            if abs(heard[0] - seen[0]) < BEEP_EVERY_S / 2:
                offsets_s += [one - other for one in heard for other in seen]
    assert len(offsets_s) >= 9 * BEEPS
    assert max(map(abs, offsets_s)) <= BAR_S
