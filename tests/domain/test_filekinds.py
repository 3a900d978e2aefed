import io
import pickle
import zipfile

import pytest

from lipwire.domain.filekinds import kind_hint


def zipped(name: str) -> bytes:
    """As torch.save writes it, but for the name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x" * 2000)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 48\n",
            "; this is a Git LFS pointer; `git lfs pull` brings it",
        ),
        (b"<!DOCTYPE html>\n<html>", "; this is an HTML page, as a failed download leaves"),
        (b"\xef\xbb\xbf\r\n <HTML lang='en'>", "; this is an HTML page"),
        (zipped("195/data.pkl"), "; this is a PyTorch checkpoint; ONNX has to be exported"),
        (zipped("archive/data.pkl"), "; this is a PyTorch checkpoint"),
        (pickle.dumps({"a": 1}, protocol=2), "; this is a PyTorch checkpoint"),
        (zipped("model_best.onnx"), "; this is a ZIP file"),
        (b"\x1f\x8b\x08\x00", "; this is a gzip file; it has to be unpacked"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"w":{', "; this is a safetensors file"),
        (b"\x18\x00\x00\x00ORTM", "; this is a model in ONNX Runtime's ORT format"),
        (b"ftrt\x00", "; this is a TensorRT engine"),
    ],
)
def test_what_lies_in_the_place_of_a_network(data: bytes, kind: str) -> None:
    assert kind_hint(data).startswith(kind)


@pytest.mark.parametrize(
    "data", [b"", b"\x08\x07\x12\x07pytorch", b"PK", b"no network", b"\0" * 64]
)
def test_what_is_nothing_known(data: bytes) -> None:
    assert kind_hint(data) == ""
