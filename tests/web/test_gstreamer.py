"""A viewer that shares no code with the server or with a browser: GStreamer's webrtcbin."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from tests.support.flashing import SETTINGS, FlashingAvatar, beeping, real_threads
from tests.support.waiting import WAIT_S, until
from tests.support.webparts import TOKEN, WebHouse

PYTHON: Final = Path("/usr/bin/python3")
CLIENT: Final = Path(__file__).parents[1] / "support" / "gstreamerviewer.py"
PROBE: Final = """
import gi
gi.require_version('Gst', '1.0')
gi.require_version('GstWebRTC', '1.0')
from gi.repository import Gst, GstWebRTC
Gst.init(None)
wanted = ('webrtcbin', 'nicesrc', 'dtlsdec', 'srtpdec', 'rtph264depay', 'avdec_h264', 'opusdec')
missing = [name for name in wanted if Gst.ElementFactory.find(name) is None]
raise SystemExit(', '.join(missing))
"""


def missing() -> str:
    """What GStreamer lacks; empty where it has all."""
    if sys.platform != "linux" or not PYTHON.exists():
        return "Debian's Python"
    tried = subprocess.run(
        [PYTHON, "-c", PROBE], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    return tried.stderr.strip().rpartition("\n")[2] if tried.returncode else ""


@pytest.mark.slow
def test_it_decodes_video_and_sound() -> None:
    lacks = missing()
    if lacks:
        pytest.skip(f"needs GStreamer with webrtcbin ({lacks})")
    with (
        real_threads() as threads,
        WebHouse(
            threads=threads, open_avatar=lambda name: FlashingAvatar().flashing(640, 360)
        ) as house,
    ):
        session = house.in_loop(house.hub.open("anna", SETTINGS))
        address = f"http://127.0.0.1:{house.server.port}/whep/anna?session={session.id}"
        with beeping(session, 120):
            client = subprocess.run(
                [PYTHON, CLIENT, address, TOKEN, "50", "100"],
                capture_output=True,
                text=True,
                timeout=WAIT_S,
                check=False,
            )
        assert client.returncode == 0, client.stderr
        told = json.loads(client.stdout)
        assert told["failed"] == ""
        assert told["size"] == [640, 360]
        assert told["video"] >= 50
        assert told["audio"] >= 100
        until(lambda: house.hub.viewers(session) == 0)
