"""Parsers of files: packages, configuration, keys, recordings."""

import functools
import io
import json
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from tests.fuzz.target import Target, Try, check_clear, file_target, target, tried

from lipwire.audio import decode_audio
from lipwire.audio.encoder_file import read_encoder_file
from lipwire.avatars.checks.problems import Findings
from lipwire.avatars.compiled.container import (
    _PRELUDE,
    Container,
    ContainerDamagedError,
    ContainerWriter,
)
from lipwire.avatars.compiled.restpart import mouth_of, stored_form
from lipwire.avatars.frames.framefiles import Pictures
from lipwire.avatars.frames.frameloading import frame_tasks
from lipwire.avatars.frames.imagefacts import image_facts
from lipwire.avatars.frames.images import decode_image
from lipwire.avatars.frames.videoalpha import tells_alpha
from lipwire.avatars.importing.features import features_note
from lipwire.avatars.importing.landmarks import landmark_rectangle
from lipwire.avatars.importing.unpacking.archives import unpacked
from lipwire.avatars.packagesettings import AvatarSettings, parse_settings, unread_keys
from lipwire.avatars.rectangles import parse_rectangles, parse_written_rectangles
from lipwire.bench.randomnetworks import write_tiny_audio_encoder, write_tiny_unet
from lipwire.config import check_config
from lipwire.domain import AvatarInvalid, InvalidInput
from lipwire.engine.compile.inspection import describe
from lipwire.engine.compile.optimising import check_sizes
from lipwire.engine.compile.sourcemodel import damage_refused, external_files, read_model
from lipwire.engine.compile.wrapping import wrap
from lipwire.security import KeyFile, LiveMinutes

JSON_WORDS = (
    *(b"null", b"true", b"-0", b"1e999", b"NaN", b"-Infinity", b'""', b"{}", b"[]", b"[[[["),
    *(b'{"a":', b"\\ud800", b"\\u0000", b"9" * 30, b"9" * 5000, b"[" * 3000, b"\xef\xbb\xbf"),
    *(b"\xff\xfe", b"0.5", b"1e3", b'"1"', b",", b":"),
)
ARCHIVE_WORDS = (
    *(b"../", b"/etc/", b"C:", b"PK\1\2", b"PK\3\4", b"PK\5\6", b"\xff" * 8, b"\0" * 512, b"5"),
    *(b"ustar\0", b"path=../a\n", b"L", b"K", b"x", b"\x1b[2J", b"7777777\0", b"\x80" + bytes(7)),
)
FEATURE_WORDS = (
    *(b"'shape': ", b"'descr': ", b"(99999999999, 512)", b"'|O'", b"'<f8'", b"(-1, 512)", b"True"),
    *(b"\x93NUMPY\3\0", b"(" * 200, b"9" * 400, b"\0", b"{", b"}", b","),
)
YAML_WORDS = (
    *(b"&a ", b"*a", b"!!python/object:os.system ", b"!!binary ", b"---\n", b"...\n", b"%YAML 9.9"),
    *(b"? ", b"- ", b": ", b"[" * 200, b"{", b"}", b"|\n", b">-\n", b"~", b".inf", b"0x10", b"1_0"),
    *(b"2001-01-01", b"\t", b"\x85", b"\xff\xfe", b"<<: *a\n", b"\n  ", b'"\\x00"', b"9" * 5000),
)


def _findings(parse: Callable[[bytes, Findings], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        findings = Findings()
        parse(data, findings)
        for problem in findings.problems:
            check_clear(problem.message)
        findings.raise_first()

    return run


RECTANGLES = (
    b"[[10, 20, 110, 120], [11, 20, 111, 120], [12, 21, 112, 121]]",
    b'{"0": [10, 20, 110, 120], "1": [11.0, 20, 111, 120], "2": [1, 2, 30, 40]}',
    b'[{"rect": [10, 20, 110, 120]}, {"rect": [1, 2, 30, 40]}]',
    b'{"frame_0000.png": [1, 2, 3, 4], "frame_0001.png": [5.0, 6, 7, 8]}',
)
AVATAR_YAML = (
    b"name: Anna\nlicence: CC0-1.0\nconsent: made by a program\ncolour_order: rgb\n"
    b"crop_border: 4\nclosed_eyes: [3, 7-9]\n",
    b'audio_encoder: "voices/encoder.onnx"\nsource_video: talk.mp4\n',
    b"# nothing\n",
)
CONFIGS = {
    "compositing": (
        b"server: {host: 127.0.0.1, port: ':50052', workers: 2}\nmodels_root: avatars\n"
        b"capacity: {max_models: 3, max_memory_gb: 1.5, compile_sandbox: true}\n"
        b"output: {format: jpeg, jpeg_quality: 80}\nlogging: {level: warn}\n"
        b"security:\n  allow_from: [10.0.0.0/8, '::1']\n  limits: {requests_per_minute: 5}\n",
        b"inference_server: {url: 'a:1, b:2', timeout_seconds: 3}\n"
        b"models:\n  anna: &a {path: x, num_frames: 5}\n  bert: *a\nweb: {port: 8080}\n"
        b"live: {max_sessions: 3}\nspeech: {voice: none}\n",
    ),
    "inference": (
        b"server: {port: 50051}\ngpus: {count: auto, memory_gb_per_gpu: 2}\n"
        b"onnx: {use_cuda: strict, cuda_device_id: 0}\nmodels_root: /srv/avatars\n"
        b"models: {anna: {model_path: 'C:\\\\a\\\\b.onnx', preload: true}}\n",
    ),
}


def _config(kind: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        checked = check_config(path, {}, kind)  # type: ignore[arg-type]
        for problem in checked.problems:
            check_clear(str(problem))
        if checked.problems:
            raise InvalidInput(str(checked.problems[0]))

    return run


KEYS = (
    json.dumps(
        {
            "version": 1,
            "keys": [
                {
                    "name": "phone",
                    "sha256": "ab" * 32,
                    "tenant": "acme",
                    "operations": ["live", "read"],
                    "avatars": ["acme-*"],
                    "created_s": 1.5e9,
                    "expires_s": None,
                }
            ],
        }
    ).encode(),
)


def _picture(extension: str, *options: int, grey: bool = False) -> bytes:
    shade = np.linspace(0, 255, 24 * 20 * 3).reshape(20, 24, 3).astype(np.uint8)
    made = shade[..., 0] if grey else shade
    return cv2.imencode(extension, made, options)[1].tobytes()


def _decode(data: bytes) -> None:
    image_facts(data)
    pixels = decode_image(data, "frame_0000.png")
    assert pixels.dtype == np.uint8


@functools.cache
def _sound(container: str, codec: str, rate_hz: int = 16_000, *, fragments: bool = False) -> bytes:
    """A fifth of a second; in ``fragments`` of an MP4 file."""
    out = io.BytesIO()
    options = {"movflags": "empty_moov+default_base_moof", "frag_duration": "50000"}
    with av.open(out, "w", format=container, options=options if fragments else {}) as file:
        stream = file.add_stream(codec, rate=rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        samples = (8000 * np.sin(np.arange(rate_hz // 5) / 9)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate_hz, 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return out.getvalue()


@functools.cache
def _video(container: str, codec: str) -> bytes:
    """Six frames of 64x48."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(6):
            pixels = np.full((48, 64, 3), index * 40, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        file.mux(stream.encode(None))
    return out.getvalue()


HVCC = bytes.fromhex("01" + "00" * 21 + "02") + b"".join(
    struct.pack(">BHH", kind, 1, len(unit)) + unit
    for kind, unit in (
        (0x21, b"\x42\x01\x01\x60"),  # a sequence parameter set
        (0x27, b"\x4e\x01\xa5\x04\x00\x00\x7f\x90\x80"),  # the message that there is alpha
    )
)
"""Parameter sets of HEVC as MP4 has them (ISO/IEC 14496-15, 8.3.3.1)."""
ALPHA = (HVCC, b"\0\0\0\1\x42\x01\x01\0\0\1\x4e\x01\xa5\x04\x00\x00\x7f\x90\x80")
MINUTES = (
    b'{"version": 1, "month": "2026-11", "seconds": {"acme": 61.5, "": 3}}\n',
    b'{"version": 1, "month": "", "seconds": {}}\n',
)


def _minutes(path: Path) -> None:
    with LiveMinutes(path, 100.0, now=lambda: 1.795e9) as minutes:
        minutes.check("acme")
        minutes.spend("acme", 5.0)


def _settings(data: bytes, findings: Findings) -> None:
    unread = unread_keys(data, parse_settings(data, findings))
    assert unread <= AvatarSettings.model_fields.keys()
    assert not unread or any(findings.errors()), "read, and yet not"


def _frames(path: Path) -> None:
    pictures = Pictures(path.parent, (), path)
    for count, task in enumerate(frame_tasks(pictures)):
        task()
        if count >= 20:
            break


def _network(write: Callable[..., None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        write(path, seed=1)
        return path.read_bytes()


def _read_network(path: Path) -> None:
    external_files(path)
    source = read_model(path)
    with damage_refused(path.name):
        info = describe(source, path.name)
        check_sizes(wrap(source.proto, info, "floats", info.fixed_batch), path.name)


def _container() -> bytes:
    out = io.BytesIO()
    writer = ContainerWriter(out)
    writer.array("one", np.arange(12, dtype=np.int64).reshape(3, 4))
    writer.begin("many")
    writer.append(b"some bytes")
    writer.array("two", np.zeros((2, 2), np.uint8))
    writer.finish("jpeg", "key", {"count": 3, "width": 4})
    return out.getvalue()


def _with_header(header: bytes) -> bytes:
    """A container whose header is this; a damaged one is seen by its checksum."""
    made = _container()
    magic, version, _, offset, _, _ = _PRELUDE.unpack_from(made)
    total = offset + len(header)
    prelude = _PRELUDE.pack(magic, version, zlib.crc32(header), offset, len(header), total)
    return prelude + made[_PRELUDE.size : offset] + header


def _header() -> bytes:
    made = _container()
    *_, offset, length, _ = _PRELUDE.unpack_from(made)
    return made[offset : offset + length]


@contextmanager
def _containers(folder: Path) -> Iterator[Try]:
    yield lambda data: tried(lambda: _read_header(folder, data))


def _read_header(folder: Path, data: bytes) -> None:
    path = folder / "jpeg-key"
    path.write_bytes(_with_header(data))
    _read_container(path)


def _read_container(path: Path) -> None:
    try:
        container = Container(path, "jpeg", "key")
        for name in ("one", "many", "two", "three"):
            container.array(name).sum()
    except ContainerDamagedError as error:
        raise AvatarInvalid(str(error)) from None


ONNX_WORDS = (
    *(b"Loop", b"Scan", b"If", b"Constant", b"ConstantOfShape", b"Conv", b"Resize", b"Shape"),
    *(b"\x08\x00", b"\x08\x01", b"\x10\x00", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
    *(b"location", b"../x", b"com.example", b"\xff" * 9 + b"\x01", b"input", b"output"),
)
MEDIA_WORDS = (
    *(b"RIFF", b"data", b"fmt ", b"OggS", b"fLaC", b"ID3", b"moov", b"trak", b"\0" * 16),
    *(b"riff", b"caff", b"desc", b"wave"),
)


def _landmarks() -> bytes:
    return "".join(f"{400 + 3 * number}.25 {90 + number}\n" for number in range(110)).encode()


def _archive(kind: str) -> bytes:
    """Two small files in an archive of that kind."""
    made = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("anna/crop_rects.json", RECTANGLES[0] * 9)
            packed.writestr("anna/avatar.yaml", AVATAR_YAML[0])
        return made.getvalue()
    mode: Any = "w:" + kind.removeprefix("tar").removeprefix(".")
    with tarfile.open(fileobj=made, mode=mode) as tar:
        for name, data in (("anna/crop_rects.json", RECTANGLES[0] * 9), ("a", b"1")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _unpack(path: Path) -> None:
    """Nothing is left of it, and nothing was written beside it."""
    with unpacked(path) as folder:
        pass
    assert not folder.exists()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def _features() -> bytes:
    made = io.BytesIO()
    np.save(made, np.zeros((3, 512), np.float32))
    return made.getvalue()


def _compare(path: Path) -> None:
    check_clear(features_note(path, None, None))


def file_targets() -> list[Target]:
    """All of them."""
    return [
        target(
            "rectangles",
            RECTANGLES,
            _findings(lambda data, findings: parse_rectangles(data, findings, first_frame=0)),
            *JSON_WORDS,
        ),
        target("written-rectangles", RECTANGLES, _findings(parse_written_rectangles), *JSON_WORDS),
        file_target(
            "landmarks",
            (_landmarks(),),
            "0.lms",
            lambda path: landmark_rectangle(path, path.name),
            *(b"nan", b"inf", b"1e999", b"-", b"\xff\xfe", b"\0", b"\r\n", b" ", b"9" * 400),
        ),
        *(
            file_target(f"archive-{kind}", (_archive(kind),), f"a.{kind}", _unpack, *ARCHIVE_WORDS)
            for kind in ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")
        ),
        file_target("features", (_features(),), "aud_ave.npy", _compare, *FEATURE_WORDS),
        target("avatar-yaml", AVATAR_YAML, _findings(_settings), *YAML_WORDS),
        *(
            file_target(f"config-{kind}", seeds, "c.yaml", _config(kind), *YAML_WORDS)
            for kind, seeds in CONFIGS.items()
        ),
        file_target("minutes-file", MINUTES, "minutes.json", _minutes, *JSON_WORDS),
        target("hevc-alpha", ALPHA, tells_alpha, b"\0\0\1", b"\xff" * 9, b"\xa5", b"\x4e\x01"),
        file_target("keys-file", KEYS, "keys.json", lambda p: KeyFile(p).listed(), *JSON_WORDS),
        target(
            "png",
            (_picture(".png"), _picture(".png", grey=True)),
            _decode,
            *(b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"eXIf"),
        ),
        target(
            "jpeg",
            (
                _picture(".jpg"),
                _picture(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
                _picture(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1, grey=True),
            ),
            _decode,
            *(
                b"\xff\xd8",
                b"\xff\xc0",
                b"\xff\xc2",
                b"\xff\xda",
                b"\xff\xd9",
                b"\xff\xe1",
                b"\xff",
            ),
        ),
        target(
            "rest-mouth",
            (stored_form(np.zeros((320, 320, 3), np.uint8)),),
            mouth_of,
        ),
        file_target("container", (_container(),), "jpeg-key", _read_container, *JSON_WORDS),
        Target("container-header", (_header(),), JSON_WORDS, _containers),
        file_target("onnx", (_network(write_tiny_unet),), "n.onnx", _read_network, *ONNX_WORDS),
        file_target(
            "onnx-encoder",
            (_network(write_tiny_audio_encoder),),
            "e.onnx",
            read_encoder_file,
            *ONNX_WORDS,
        ),
        *(
            target(
                f"sound-{name}",
                (_sound(container, codec, rate_hz),),
                lambda data: decode_audio(data),
                *MEDIA_WORDS,
            )
            for name, container, codec, rate_hz in (
                ("wav", "wav", "pcm_s16le", 16_000),
                ("flac", "flac", "flac", 16_000),
                ("mp3", "mp3", "libmp3lame", 16_000),
                ("ogg", "ogg", "libopus", 48_000),
                ("w64", "w64", "pcm_s16le", 16_000),
                ("caf", "caf", "pcm_s16be", 16_000),
                ("mp4", "mp4", "aac", 16_000),
                ("webm", "webm", "libopus", 48_000),
            )
        ),
        target(
            "sound-mp4-fragments",
            (
                _sound("mp4", "aac", fragments=True),
                _sound("mp4", "aac", fragments=True) * 2,
            ),
            lambda data: decode_audio(data),
            *(*MEDIA_WORDS, b"ftyp", b"moof", b"mdat", b"sidx", b"\0\0\0\1mdat" + bytes(8)),
        ),
        *(
            file_target(f"video-{kind}", (_video(kind, codec),), f"v.{kind}", _frames, *MEDIA_WORDS)
            for kind, codec in (("mp4", "libx264"), ("webm", "libvpx"))
        ),
    ]
