"""What kind of file a name stands for; and what a file is that should have been another, by its
first bytes.

Sources: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md; the file formats' own magic
numbers.
"""

from typing import Final

VIDEO_SUFFIXES: Final = (".mp4", ".m4v", ".mov")
"""What the names of videos that Lipwire writes may end in."""
HEAD_BYTES: Final = 512
"""So much of a file is enough."""

_HTML: Final = (b"<!doctype html", b"<html", b"<head")
_PYTORCH: Final = "a PyTorch checkpoint; ONNX has to be exported from it (torch.onnx.export)"
_KINDS: Final = (
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer; `git lfs pull` brings it"),
    (0, b"PK\x03\x04", "a ZIP file"),
    (0, b"\x1f\x8b", "a gzip file; it has to be unpacked"),
    (0, b"\x80\x02", _PYTORCH),
    (0, b"\x80\x04", _PYTORCH),
    (4, b"ORTM", "a model in ONNX Runtime's ORT format; ONNX is needed"),
    (4, b"TFL3", "a TensorFlow Lite model; ONNX is needed"),
    (0, b"ftrt", "a TensorRT engine; the ONNX file it was built from is needed"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"<?xml", "an XML file"),
)


def kind_hint(data: bytes) -> str:
    """Return what kind of file begins with ``data``, as the end of an error message: "; this is a
    ZIP file". Only the first 512 bytes are looked at.

    Known are kinds of files that are often given in place of networks and configurations, such as
    Git LFS pointers, HTML pages and PyTorch checkpoints; the text is empty for all others.
    """
    kind = _kind(data[:HEAD_BYTES])
    return f"; this is {kind}" if kind else ""


def _kind(head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_HTML):
        return "an HTML page, as a failed download leaves"
    if head.startswith(b"PK\x03\x04") and b".pkl" in head:
        return _PYTORCH  # the first entry of the ZIP file is its pickle
    if len(head) > 8 and head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 30:
        return "a safetensors file; ONNX has to be exported from the network"
    for place, magic, kind in _KINDS:
        if head[place : place + len(magic)] == magic:
            return kind
    return None
