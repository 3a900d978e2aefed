"""Files as people write them, and what is said of those that are wrong."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from lipwire.config import (
    CompositingConfig,
    InferenceConfig,
    check_config,
    detect_kind,
    load_compositing_config,
    load_inference_config,
)
from lipwire.config.schema import Kind
from lipwire.domain import AvatarFiles, InvalidInput, NotFound

Write = Callable[..., Path]

GUIDE = Path(__file__).parent / "guide"


def messages(path: Path | None, kind: Kind, environ: dict[str, str] | None = None) -> list[str]:
    checked = check_config(path, environ or {}, kind)
    assert (checked.config is None) == bool(checked.problems)
    return [str(problem) for problem in checked.problems]


@pytest.mark.parametrize(
    "snippet",
    [
        'inference_server:\n  url: "load-balancer.internal:50051"\n',
        "models:\n  sanders:\n    background_dir: a/frames\n    preload_backgrounds: false\n"
        "capacity:\n  background_cache_frames: 100\n",
        'logging:\n  level: "debug"\n  log_compositing_times: true\n  log_cache_stats: true\n',
        'capacity:\n  eviction_policy: "lru"\n  idle_timeout_minutes: 30\n',
    ],
)
def test_the_guides_other_snippets_load(write: Write, snippet: str) -> None:
    assert messages(write(snippet), "compositing") == []


def test_there_are_defaults_without_a_file(write: Write) -> None:
    for path in (None, write(""), write("server:\ngpus:\nmodels:\nmodels_root: ~\n")):
        assert load_inference_config(path, {}) == InferenceConfig()
    assert load_compositing_config(None, {}) == CompositingConfig()
    assert InferenceConfig().server.port == 50051
    assert CompositingConfig().server.port == 50052


@pytest.mark.parametrize(
    ("line", "host", "port"),
    [
        ('port: ":6000"', "127.0.0.1", 6000),
        ("port: :6000", "127.0.0.1", 6000),
        ("port: 6000", "127.0.0.1", 6000),
        ("port: 0", "127.0.0.1", 0),
        ('port: "127.0.0.1:6000"', "127.0.0.1", 6000),
        ('port: "[::1]:6000"', "::1", 6000),
        ("port: 6000\n  host: localhost", "localhost", 6000),
    ],
)
def test_ports(write: Write, line: str, host: str, port: int) -> None:
    server = load_inference_config(write(f"server:\n  {line}\n"), {}).server
    assert (server.host, server.port) == (host, port)


@pytest.mark.parametrize(
    ("value", "targets"),
    [
        ("a:1", ("a:1",)),
        ('"a:1, b:2"', ("a:1", "b:2")),
        ("[a:1, b:2]", ("a:1", "b:2")),
        ("\n    - a:1\n    - b:2", ("a:1", "b:2")),
    ],
)
def test_one_url_or_several(write: Write, value: str, targets: tuple[str, ...]) -> None:
    path = write(f"inference_server:\n  url: {value}\n")
    assert load_compositing_config(path, {}).inference_server.url == targets


@pytest.mark.parametrize(
    ("text", "wanted", "required"),
    [
        ("", True, False),
        ("onnx: {use_cuda: true}", True, False),
        ("onnx: {use_cuda: strict}", True, True),
        ("onnx: {use_cuda: false}", False, False),
        ("onnx: {use_cuda: strict}\ngpus: {enabled: false}", False, False),
    ],
)
def test_cuda_is_wanted_required_or_not(
    write: Write, text: str, wanted: bool, required: bool
) -> None:
    config = load_inference_config(write(text), {})
    assert (config.wants_cuda, config.requires_cuda) == (wanted, required)


def test_idle_time_zero_is_never(write: Write) -> None:
    config = load_inference_config(write("capacity: {idle_timeout_minutes: 0}"), {})
    assert config.capacity.idle_timeout_s is None
    config = load_inference_config(write("capacity: {idle_timeout_minutes: 0.5}"), {})
    assert config.capacity.idle_timeout_s == 30


def test_each_path_of_a_model_means_that_file_or_folder(write: Write, tmp_path: Path) -> None:
    path = write(
        "models_root: avatars\n"
        "models:\n"
        "  a: {model_path: x/a/checkpoint/model_best.onnx}\n"
        "  b: {background_dir: /x/b/frames/}\n"
        "  c: {crop_rects_path: ./c/crop_rects.json, background_dir: c/frames}\n"
        "  d: {path: d}\n"
        "  e: {preload: true}\n"
        "  f:\n"
        "  g: {path: ~/g}\n"
        "  123: {path: n}\n"
    )
    assert load_inference_config(path, {}).files == {
        "a": AvatarFiles(model=tmp_path / "x" / "a" / "checkpoint" / "model_best.onnx"),
        "b": AvatarFiles(frames=Path("/x/b/frames")),
        "c": AvatarFiles(
            frames=tmp_path / "c" / "frames", rectangles=tmp_path / "c" / "crop_rects.json"
        ),
        "d": AvatarFiles(folder=tmp_path / "d"),
        "e": AvatarFiles(folder=tmp_path / "avatars" / "e"),
        "f": AvatarFiles(folder=tmp_path / "avatars" / "f"),
        "g": AvatarFiles(folder=Path.home() / "g"),
        "123": AvatarFiles(folder=tmp_path / "n"),
    }


@pytest.mark.parametrize("root", ["avatars", "{tmp}/avatars", "./avatars/../avatars"])
def test_relative_paths_start_in_the_root_where_they_are_there(
    write: Write, tmp_path: Path, root: str
) -> None:
    (tmp_path / "avatars" / "anna" / "frames").mkdir(parents=True)
    path = write(
        f"models_root: {root.format(tmp=tmp_path)}\n"
        "models:\n"
        "  anna: {background_dir: anna/frames, crop_rects_path: elsewhere.json}\n"
        "  ben: {model_path: /x/ben.onnx, audio_encoder_path: anna/frames}\n"
        "  carl: {audio_encoder_path: /x/encoder.onnx}\n"
    )
    files = load_compositing_config(path, {}).files
    inside = tmp_path / root.format(tmp=tmp_path)
    assert files == {
        "anna": AvatarFiles(
            frames=inside / "anna" / "frames", rectangles=tmp_path / "elsewhere.json"
        ),
        "ben": AvatarFiles(model=Path("/x/ben.onnx"), audio_encoder=inside / "anna" / "frames"),
        "carl": AvatarFiles(folder=inside / "carl", audio_encoder=Path("/x/encoder.onnx")),
    }


def test_an_audio_encoder_alone_starts_in_the_root_as_well(write: Write, tmp_path: Path) -> None:
    (tmp_path / "avatars").mkdir()
    (tmp_path / "avatars" / "shared.onnx").touch()
    (tmp_path / "own.onnx").touch()
    path = write(
        "models_root: avatars\n"
        "models: {a: {audio_encoder_path: shared.onnx}, b: {audio_encoder_path: own.onnx}}\n"
    )
    root = tmp_path / "avatars"
    assert load_compositing_config(path, {}).files == {
        "a": AvatarFiles(folder=root / "a", audio_encoder=root / "shared.onnx"),
        "b": AvatarFiles(folder=root / "b", audio_encoder=tmp_path / "own.onnx"),
    }


@pytest.mark.skipif(os.name == "nt", reason="these paths are at home there")
def test_the_paths_that_a_file_names_are_counted(write: Write) -> None:
    path = write("models_root: 'D:\\a'\nmodels: {a: {path: 'D:\\a\\a'}, b: {preload: true}}\n")
    (note,) = load_inference_config(path, {}).notes()
    assert note.endswith("(and 1 more)")


def test_what_files_of_the_go_servers_hold_is_taken_or_told(write: Write) -> None:
    path = write(
        "gpus: {count: 1, allow_multi_gpu_models: false}\n"
        "capacity: {max_models: 40, max_memory_gb: 20}\n"
        "onnx: {cuda_streams_per_worker: 2, intra_op_threads: 4, inter_op_threads: 2}\n"
        "models: {sanders: {path: /s, preferred_gpu: 0}, anna: {path: /a, preferred_gpu: -1}}\n"
        "logging: {log_level: warn, log_inference_times: true, log_gpu_utilization: true,\n"
        "  buffered_logging: true, sample_rate: 0, auto_flush: true, flush_interval_ms: 100}\n"
    )
    config = load_inference_config(path, {})
    assert detect_kind(path) == "inference"
    assert config.capacity.max_memory_bytes == 20 * 2**30
    assert [config.capacity.max_models_on_each(devices) for devices in (1, 2, 3, 80)] == [
        40, 20, 13, 1,
    ]  # fmt: skip
    assert (config.logging.level, config.logging.log_inference_times) == ("warn", True)
    told = [note.split(" has no effect: ")[0] for note in config.notes()]
    assert told == [
        "gpus.allow_multi_gpu_models",
        "onnx.cuda_streams_per_worker",
        "onnx.intra_op_threads",
        "onnx.inter_op_threads",
        "models.NAME.preferred_gpu",
        "logging.log_gpu_utilization",
        "logging.buffered_logging",
        "logging.sample_rate",
        "logging.auto_flush",
        "logging.flush_interval_ms",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("capacity: {max_memory_gb: 2, max_memory_mb: 2048}", "are both given; leave one out"),
        ("logging: {log_level: warn, level: info}", "log_level and level are both given"),
        ("logging: {log_level: loud}", "is loud; allowed is debug, info, warn or error"),
        ("gpus: {sample_rate: 3}", "unknown key sample_rate in gpus"),
    ],
)
def test_what_files_of_the_go_servers_hold_is_checked(
    write: Write, text: str, message: str
) -> None:
    (found,) = messages(write(text), "inference")
    assert message in found


def test_no_gpus_are_none(write: Write) -> None:
    config = load_inference_config(write("gpus: {count: 0}\nonnx: {use_cuda: strict}"), {})
    assert not config.wants_cuda
    assert not config.requires_cuda
    assert config.notes() == ["onnx.use_cuda has no effect while gpus.count is 0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("servr:\n  port: 1", "line 1: unknown key servr; did you mean server?"),
        (
            "server:\n  max_mesage_size_mb: 5",
            "line 2: unknown key max_mesage_size_mb in server; did you mean max_message_size_mb?",
        ),
        ("a: 1\nqueue_size: 5", "line 2: unknown key queue_size; did you mean server.queue_size?"),
        (
            "output:\n  format: raw",
            "line 1: output is a key of the compositing server; this file is the inference server",
        ),
        (
            "capacity:\n  background_cache_frames: 5",
            "line 2: capacity.background_cache_frames is a key of the compositing server",
        ),
        (
            "models:\n  a: {path: x, prelod: true}",
            "line 2: unknown key prelod in models.a; did you mean preload?",
        ),
        ("zzzz: 1", "line 1: unknown key zzzz; known are "),
        ('server: {port: ":99999"}', "line 1: server.port is :99999; allowed is 0 to 65535"),
        ("server: {port: http}", "line 1: server.port is http; allowed is 0 to 65535"),
        ("server: {port: -1}", "line 1: server.port is -1; allowed is 0 to 65535"),
        ("server: {port: [1]}", "line 1: server.port is a list; allowed is 0 to 65535"),
        ("server: {host: a b}", "line 1: server.host is 'a b'; allowed is a host name"),
        (
            'server: {host: localhost, port: "127.0.0.1:1"}',
            "line 1: server: host is localhost and port names the host 127.0.0.1; leave one out",
        ),
        ("server: {queue_size: 0}", "server.queue_size is 0; allowed is 1 to 100000"),
        ("server: {queue_size: 1.5}", "server.queue_size is 1.5; allowed is 1 to 100000"),
        ("server: {workers: ''}", "server.workers is ''; allowed is 1 to 256"),
        ("server: 5", "line 1: server is 5; it has to be a mapping of keys to values"),
        ("server: [a]", "line 1: server is a list; it has to be a mapping of keys to values"),
        ("gpus: {count: -1}", "gpus.count is -1; allowed is 0 to 64 or auto"),
        ("gpus: {enabled: 7}", "gpus.enabled is 7; allowed is true or false"),
        ("gpus: {kernels: auto}", "gpus.kernels is auto; allowed is true or false"),
        (
            "gpus: {assignment_strategy: random}",
            "gpus.assignment_strategy is random; allowed is round-robin or least-loaded",
        ),
        ("gpus: {memory_gb_per_gpu: 0}", "is 0; allowed is more than 0, up to 4096"),
        ("onnx: {use_cuda: maybe}", "onnx.use_cuda is maybe; allowed is true, false or strict"),
        ("capacity: {eviction_policy: LFU!}", "is 'LFU!'; allowed is lfu or lru"),
        ("capacity: {idle_timeout_minutes: .nan}", "is .nan; allowed is 0 to 525600"),
        ("capacity: {idle_timeout_minutes: inf}", "is inf; allowed is 0 to 525600"),
        ("logging: {level: loud}", "is loud; allowed is debug, info, warn or error"),
        ("models: [a]", "models is a list; it has to be a mapping of keys to values"),
        ("models: {a: 5}", "models.a is 5; it has to be a mapping of keys to values"),
        ("models: {../a: {path: x}}", "line 1: the name ../a is not allowed; a name has 1 to 128"),
        ("models: {'[key]': 5}", "line 1: models.[key] is 5; it has to be a mapping of keys to"),
        ("server.port: 1", "line 1: unknown key server.port; did you mean server?"),
        ("server: {a.b: 1}", "line 1: unknown key a.b in server; "),
        ("models: {a: {preload: true}}", "line 1: models.a: no file is known of it; give path"),
        ('models: {a: {path: ""}}', "models.a.path is ''; allowed is a path"),
        (
            'models_root: /\nmodels: {a: {path: ""}}',
            "line 2: models.a.path is ''; allowed is a path",
        ),
        ('models: {a: {path: "x\\0y"}}', "models.a.path is 'x\\x00y'; allowed is a path"),
        ("models: {a: {path: [x]}}", "models.a.path is a list; allowed is a path"),
        ("models: {a: {path: x, num_frames: 0}}", "num_frames is 0; allowed is 1 to 1000000"),
        ("models: {a: {model_path: [x]}}", "models.a.model_path is a list; allowed is a path"),
        ("models: {a: {audio_encoder_path: x}}", "line 1: models.a: no file is known of it"),
        ("server: {port: 1, port: 2}", "port is given twice; it was first given in line 1"),
    ],
)
def test_what_is_wrong_names_the_line_the_value_and_what_is_allowed(
    write: Write, text: str, message: str
) -> None:
    path = write(text)
    found = messages(path, "inference")
    assert any(message in line for line in found), found
    with pytest.raises(InvalidInput) as raised:
        load_inference_config(path, {})
    assert str(raised.value).startswith(f"{path} {found[0]}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output: {format: png}", "output.format is png; allowed is jpeg, raw or h264"),
        ("output: {h264_crf: 0}", "output.h264_crf is 0; allowed is 1 to 51"),
        ("output: {jpeg_quality: 101}", "output.jpeg_quality is 101; allowed is 1 to 100"),
        (
            "inference_server: {url: http://a:1}",
            "inference_server.url is http://a:1; allowed is host:port, several with commas",
        ),
        ("inference_server: {url: []}", "inference_server.url is a list; allowed is host:port"),
        ("inference_server: {timeout_seconds: 0}", "is 0; allowed is more than 0, up to 3600"),
        ("inference_server: {max_retries: -1}", "max_retries is -1; allowed is 0 to 100"),
        ("server: {queue_size: 5}", "server.queue_size is a key of the inference server"),
        ("speech: {voice: anna}", "speech.voice is anna; allowed is hibari, espeak-ng, openai or"),
        ("speech: {speed: 3}", "speech.speed is 3; allowed is 0.5 to 2"),
        ("speech: {language: ../x}", "speech.language is ../x; allowed is a language's code"),
        ("speech: {url: ftp://x}", "speech.url is ftp://x; allowed is a URL of http or https"),
        ("speech: {url: 'http://a:b@x'}", "allowed is a URL of http or https"),
        ("speech: {url: 'http://x:99999'}", "allowed is a URL of http or https"),
        ("speech: {timeout_seconds: 0}", "is 0; allowed is more than 0, up to 600"),
        ("speech: {voice: openai}", "speech: voice is openai and url is missing; name the server"),
    ],
)
def test_the_compositing_servers_own_keys_are_checked(
    write: Write, text: str, message: str
) -> None:
    (found,) = messages(write(text), "compositing")
    assert message in found


def test_a_key_that_is_secret_is_shown_nowhere(write: Write) -> None:
    config = load_compositing_config(
        write("speech: {voice: openai, url: 'https://x/v1'}"),
        {"LIPWIRE_SPEECH__API_KEY": "hush-hush"},
    )
    assert config.speech.api_key is not None
    assert config.speech.api_key.get_secret_value() == "hush-hush"
    shown = [repr(config), str(config), config.model_dump_json(), *config.notes()]
    assert not any("hush" in text for text in shown)
    path = write(f"speech: {{api_key: {'hush' * 600}}}")
    (found,) = messages(path, "compositing")
    assert "hush" not in found
    assert "speech.api_key is not as it has to be; allowed is a text" in found


def test_everything_wrong_is_told_at_once_in_the_order_of_the_file(write: Write) -> None:
    path = write("server:\n  port: x\n  port: y\nbad: 1\ngpus:\n  count: none\n  cuont: 1\n")
    lines = [line.partition(":")[0] for line in messages(path, "inference")]
    assert lines == ["line 2", "line 3", "line 4", "line 6", "line 7"]
    with pytest.raises(InvalidInput, match=r"line 2: .* \(and 4 more; see lipwire config check\)$"):
        load_inference_config(path, {})


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(NotFound):
        load_inference_config(Path("nowhere.yaml"), {})


def test_nothing_of_a_configuration_can_be_changed() -> None:
    config = InferenceConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("gpus: {}", "inference"),
        ("output: {}", "compositing"),
        ("server: {queue_size: 1}", "inference"),
        ("capacity: {background_cache_frames: 1}", "compositing"),
        ("server: {port: 1}", None),
        ("", None),
        ("- a", None),
    ],
)
def test_a_file_shows_whose_it_is(write: Write, text: str, kind: Kind | None) -> None:
    assert detect_kind(write(text)) == kind


def test_the_guides_files_show_whose_they_are(write: Write) -> None:
    assert detect_kind(GUIDE / "inference.yaml") == "inference"
    assert detect_kind(GUIDE / "compositing.yaml") == "compositing"
    assert detect_kind(write("server: {port: 1}", "inference.yaml")) == "inference"


def test_preloading_more_than_may_be_kept_is_told(write: Write) -> None:
    text = (
        "capacity: {background_cache_frames: 100}\n"
        "models: {a: {path: /a, num_frames: 523, preload_backgrounds: true}}\n"
    )
    (note,) = load_compositing_config(write(text), {}).notes()
    assert note.startswith("models.a: 100 of its 523 frames are preloaded")


_words = st.sampled_from(
    ["server", "port", "models", "a", "path", "url", "5", "-1", ".nan", "true", "~", "[]", "{}",
     "&x", "*x", "<<", "!!int", "'", '"', "|", ">", "?", "-", "\n", "\n  ", "\n    ", ": ", ": ",
     "#", "{", "}", "[", "]", ",", "\t", "%", "@", "\x85", "é", "gpus", "count"]
)  # fmt: skip


@given(words=st.lists(_words, max_size=40))
@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_text_ends_in_anything_but_an_answer(tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "any.yaml"
    path.write_text("".join(words), encoding="utf-8")
    detect_kind(path)
    for kind in ("inference", "compositing"):
        for message in messages(path, kind):
            assert "\n" not in message


def test_all_requests_in_hand_have_room_for_one_message(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server:\n  max_message_size_mb: 200\n")
    assert load_inference_config(path, {}).server.max_request_bytes == 2000 * 2**20
    path.write_text("server:\n  max_message_size_mb: 200\n  max_request_memory_mb: 100\n")
    with pytest.raises(InvalidInput, match="max_request_memory_mb is 100; a message alone"):
        load_inference_config(path, {})


def test_a_warning_is_a_level(write: Write) -> None:
    for text in ("logging: {log_level: warning}", "logging: {level: warning}"):
        assert load_inference_config(write(text), {}).logging.level == "warn"
    environ = {"LIPWIRE_LOGGING__LEVEL": "warning"}
    assert load_inference_config(write(""), environ).logging.level == "warn"


@pytest.mark.parametrize("root", ["", "models_root: avatars\\of\\us\n"])
def test_relative_paths_may_have_backslashes(write: Write, tmp_path: Path, root: str) -> None:
    text = root + (
        "models:\n  a: {path: k10\\name}\n  b: {path: 'here\\there'}\n"
        "  c: {model_path: nets\\b.onnx, background_dir: frames\\c}\n"
    )
    (tmp_path / "here\\there").mkdir()
    config = load_inference_config(write(text), {})
    folder = tmp_path
    if root:
        assert config.models_root == tmp_path / "avatars" / "of" / "us"
    assert config.models["a"].path == folder / "k10" / "name"
    assert config.models["b"].path == folder / "here\\there", "a folder that is called so"
    assert config.models["c"].model_path == folder / "nets" / "b.onnx"
    assert config.models["c"].background_dir == folder / "frames" / "c"


def test_backslashes_lead_into_models_root(write: Write, tmp_path: Path) -> None:
    (tmp_path / "avatars" / "k10" / "name").mkdir(parents=True)
    config = load_inference_config(
        write("models_root: avatars\nmodels: {a: {path: k10\\name}}"), {}
    )
    assert config.models["a"].path == tmp_path / "avatars" / "k10" / "name"


def test_the_last_process_needs_a_port_for_profiles(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server: {workers: 4, profile_port: 65533}\n")
    with pytest.raises(InvalidInput, match="profile_port is 65533; with 4 workers it is 65532 at"):
        load_inference_config(path, {})
    path.write_text("server: {workers: 4, profile_port: 65532}\n")
    assert load_inference_config(path, {}).server.profile_port == 65532
    assert load_inference_config(None, {}).server.profile_port is None


def test_the_sandbox_has_room_for_the_libraries(write: Write) -> None:
    """Less starts a process that can compile nothing."""
    assert load_inference_config(write("capacity: {compile_memory_mb: 1024}"), {})
    with pytest.raises(InvalidInput, match=r"compile_memory_mb is 1023; .* 1024 to 16777216"):
        load_inference_config(write("capacity: {compile_memory_mb: 1023}"), {})
