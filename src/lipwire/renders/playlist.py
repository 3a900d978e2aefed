"""HTTP Live Streaming: a finished video as segments of fragmented MP4, in one file, and the
playlist that says where each of them is (RFC 8216, EXT-X-BYTERANGE).

Pictures and sound are copied, not encoded anew, so a segment begins where the video has a key
frame. One file can be stored under the hash of its content, and fetched in ranges.
"""

import contextlib
from pathlib import Path
from typing import Final

import av

from lipwire.domain.newfiles import remove, storage_errors, temporary_name

FILE: Final = "video.m4s"
"""What the playlist calls the file."""
_SEGMENT_S: Final = 6
"""How long a segment lasts at least, up to the next key frame."""


def write_playlist(video: Path, target: Path) -> str:
    """Write the content of the finished MP4 file ``video``, cut into segments of about 6 s, to the
    new file ``target``, and return the text of the HLS playlist, which calls that file
    ``video.m4s``. Nothing is encoded anew, and ``video`` is left unchanged. Raises StorageFailed
    where ``target`` cannot be written, such as on a full disk, or ``video`` is not there."""
    folder = temporary_name(target.parent)
    try:
        with storage_errors(target):
            folder.mkdir()
            options = {
                "hls_segment_type": "fmp4",
                "hls_flags": "single_file+independent_segments",
                "hls_time": str(_SEGMENT_S),
                "hls_list_size": "0",
                "hls_playlist_type": "vod",
                "hls_segment_filename": str(folder / FILE),
            }
            playlist = folder / "video.m3u8"
            with contextlib.ExitStack() as stack:
                source = stack.enter_context(av.open(f"file:{video}"))
                written = stack.enter_context(
                    av.open(str(playlist), "w", format="hls", options=options)
                )
                streams = {
                    stream.index: written.add_stream_from_template(stream)
                    for stream in source.streams
                }
                for packet in source.demux():
                    if packet.dts is not None:  # else it is the mark of the end
                        packet.stream = streams[packet.stream.index]
                        written.mux(packet)
            (folder / FILE).replace(target)
            return playlist.read_text("utf-8")
    finally:
        remove(folder)


def with_query(playlist: str, query: str) -> str:
    """Return ``playlist``, the text from ``write_playlist``, with "?" and ``query`` behind each
    mention of ``video.m4s``, so that whoever may fetch the playlist with that query may fetch the
    file."""
    return playlist.replace(FILE, f"{FILE}?{query}")
