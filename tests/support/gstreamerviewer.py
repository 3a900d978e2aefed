"""A WHEP client by GStreamer's webrtcbin, for Debian's Python, which alone has its bindings.

    /usr/bin/python3 gstreamerviewer.py ADDRESS TOKEN PICTURES SOUNDS

Views ADDRESS until so many pictures and buffers of sound are decoded, and prints JSON: how many
there were, and the size of the pictures.
"""

import json
import sys
import urllib.request
from typing import Any
from urllib.parse import urljoin

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

CAPS = {
    "video": "application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000,"
    "packetization-mode=(string)1,profile-level-id=(string)42e01f",
    "audio": "application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000,"
    "encoding-params=(string)2",
}
DECODERS = {
    "video": "queue ! rtph264depay ! h264parse ! avdec_h264 ! identity name=end",
    "audio": "queue ! rtpopusdepay ! opusdec ! identity name=end",
}


class Viewer:
    """One viewer, in the main loop."""

    def __init__(self, address: str, token: str, wanted: dict[str, int]) -> None:
        self.address = address
        self.token = token
        self.wanted = wanted
        self.counts = dict.fromkeys(wanted, 0)
        self.size: list[int] | None = None
        self.failed = ""
        self.location = ""
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.Pipeline.new("viewer")
        self.webrtc = Gst.ElementFactory.make("webrtcbin", "webrtc")
        self.webrtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self.pipeline.add(self.webrtc)
        for caps in CAPS.values():
            self.webrtc.emit(
                "add-transceiver",
                GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY,
                Gst.Caps.from_string(caps),
            )
        self.webrtc.connect("pad-added", self.on_pad)
        self.webrtc.connect("notify::ice-gathering-state", self.on_gathering)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.on_error)

    def run(self) -> None:
        self.pipeline.set_state(Gst.State.PLAYING)
        self.webrtc.emit("create-offer", None, Gst.Promise.new_with_change_func(self.on_offer))
        self.loop.run()
        if self.location:
            self.ask("DELETE", self.location, None)
        self.pipeline.set_state(Gst.State.NULL)

    def ask(self, method: str, address: str, body: bytes | None) -> tuple[Any, str]:
        headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(address, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.headers, answer.read().decode()

    def on_offer(self, promise: Any) -> None:
        reply = promise.get_reply()  # what it holds lives as long
        offer = reply.get_value("offer")
        self.webrtc.emit("set-local-description", offer, Gst.Promise.new())

    def on_gathering(self, webrtc: Any, state: Any) -> None:
        if webrtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(self.view)

    def view(self) -> None:
        offer = self.webrtc.get_property("local-description").sdp.as_text()
        headers, text = self.ask("POST", self.address, offer.encode())
        self.location = urljoin(self.address, headers["Location"])
        _, sdp = GstSdp.SDPMessage.new_from_text(text)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        self.webrtc.emit("set-remote-description", answer, Gst.Promise.new())

    def on_pad(self, webrtc: Any, pad: Any) -> None:
        if pad.direction != Gst.PadDirection.SRC:
            return
        kind = pad.get_current_caps().get_structure(0).get_string("media")
        decoding = Gst.parse_bin_from_description(f"{DECODERS[kind]} ! fakesink sync=false", True)
        decoding.get_by_name("end").connect("handoff", self.on_decoded, kind)
        self.pipeline.add(decoding)
        decoding.sync_state_with_parent()
        pad.link(decoding.get_static_pad("sink"))

    def on_decoded(self, identity: Any, buffer: Any, kind: str) -> None:
        self.counts[kind] += 1
        if kind == "video":
            caps = identity.get_static_pad("src").get_current_caps().get_structure(0)
            self.size = [caps.get_int("width")[1], caps.get_int("height")[1]]
        if all(self.counts[kind] >= wanted for kind, wanted in self.wanted.items()):
            self.loop.quit()

    def on_error(self, bus: Any, message: Any) -> None:
        error, more = message.parse_error()
        self.failed = f"{error.message}; {more}"
        self.loop.quit()


def main() -> None:
    Gst.init(None)
    address, token, pictures, sounds = sys.argv[1:]
    viewer = Viewer(address, token, {"video": int(pictures), "audio": int(sounds)})
    viewer.run()
    print(json.dumps({**viewer.counts, "size": viewer.size, "failed": viewer.failed}))


if __name__ == "__main__":
    main()
