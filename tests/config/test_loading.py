"""Files as people write them, and what is said of those that are wrong."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lipwire.config import (
    CompositingConfig,
    InferenceConfig,
    check_config,
    detect_kind,
    load_compositing_config,
    load_inference_config,
)
from lipwire.config.environment import Kind
from lipwire.domain import InvalidInput, NotFound

Write = Callable[..., Path]

GUIDE = Path(__file__).parent / "guide"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(text: str, name: str = "config.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return to


def messages(path: Path | None, kind: Kind, environ: dict[str, str] | None = None) -> list[str]:
    checked = check_config(path, environ or {}, kind)
    assert (checked.config is None) == bool(checked.problems)
    return [str(problem) for problem in checked.problems]


def test_the_guides_inference_file_loads_as_it_stands() -> None:
    config = load_inference_config(GUIDE / "inference.yaml", {})
    assert config.server.address == "0.0.0.0:50051"
    assert config.server.max_message_size_mb == 100
    assert config.server.max_message_bytes == 100 * 1024 * 1024
    assert (config.server.worker_count_per_gpu, config.server.queue_size) == (8, 50)
    assert (config.gpus.enabled, config.gpus.count, config.gpus.memory_gb_per_gpu) == (True, 1, 24)
    assert config.gpus.assignment_strategy == "round-robin"
    assert config.onnx.library_path == "C:/onnxruntime-1.22.0/lib/onnxruntime.dll"
    assert (config.onnx.use_cuda, config.onnx.cuda_device_id) == (True, 0)
    assert (config.wants_cuda, config.requires_cuda) == (True, False)
    assert config.capacity.max_models_per_gpu == 1000
    assert config.capacity.eviction_policy == "lfu"
    assert config.capacity.idle_timeout_s == 3600
    sanders = "d:/Projects/webcodecstest/minimal_server/models/sanders"
    assert {name: str(path) for name, path in config.packages.items()} == {"sanders": sanders}
    assert config.models["sanders"].preload is False
    assert config.notes()[0].startswith("onnx.library_path is not used")


def test_the_guides_compositing_file_loads_as_it_stands() -> None:
    config = load_compositing_config(GUIDE / "compositing.yaml", {})
    assert config.server.address == "0.0.0.0:50052"
    assert config.inference_server.url == ("localhost:50051",)
    assert (config.inference_server.timeout_seconds, config.inference_server.max_retries) == (10, 3)
    assert (config.capacity.max_models, config.capacity.background_cache_frames) == (11_000, 600)
    assert (config.capacity.eviction_policy, config.capacity.idle_timeout_minutes) == ("lfu", 60)
    assert (config.output.format, config.output.jpeg_quality) == ("jpeg", 75)
    sanders = config.models["sanders"]
    assert str(sanders.path) == "d:/Projects/webcodecstest/minimal_server/models/sanders"
    assert (sanders.num_frames, sanders.preload_backgrounds) == (523, True)
    assert config.logging.level == "info"
    assert (config.logging.log_compositing_times, config.logging.log_cache_stats) == (True, False)


@pytest.mark.skipif(os.name == "nt", reason="these paths are at home there")
def test_windows_paths_are_told_of_elsewhere() -> None:
    notes = load_compositing_config(GUIDE / "compositing.yaml", {}).notes()
    assert len(notes) == 1
    assert notes[0].startswith("models.sanders: d:/Projects/")
    assert notes[0].endswith("is a Windows path and leads nowhere on this system")


@pytest.mark.skipif(os.name == "nt", reason="these paths are at home there")
def test_the_guides_files_serve_elsewhere_with_a_root_for_their_models(tmp_path: Path) -> None:
    environ = {"LIPWIRE_MODELS_ROOT": str(tmp_path)}
    for load in (load_inference_config, load_compositing_config):
        config = load(GUIDE / f"{load.__name__.split('_')[1]}.yaml", environ)
        assert config.packages == {"sanders": tmp_path / "sanders"}
        assert config.notes()[-1].endswith(f"; its name in {tmp_path} is used instead")
    assert (
        load_compositing_config(GUIDE / "compositing.yaml", environ)
        .models["sanders"]
        .preload_backgrounds
    )


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
        ('port: ":6000"', "0.0.0.0", 6000),
        ("port: :6000", "0.0.0.0", 6000),
        ("port: 6000", "0.0.0.0", 6000),
        ("port: 0", "0.0.0.0", 0),
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


def test_the_folder_of_a_model_follows_from_any_of_its_paths(write: Write, tmp_path: Path) -> None:
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
    assert load_inference_config(path, {}).packages == {
        "a": tmp_path / "x" / "a",
        "b": Path("/x/b"),
        "c": tmp_path / "c",
        "d": tmp_path / "d",
        "e": tmp_path / "avatars" / "e",
        "f": tmp_path / "avatars" / "f",
        "g": Path.home() / "g",
        "123": tmp_path / "n",
    }


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
            "capacity:\n  max_models: 5",
            "line 2: capacity.max_models is a key of the compositing server",
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
        ("gpus: {count: 0}", "gpus.count is 0; allowed is 1 to 64 or auto"),
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
        ("models: {a: {preload: true}}", "line 1: models.a: no folder is known for it; give path"),
        ('models: {a: {path: ""}}', "models.a.path is ''; allowed is a path"),
        ('models: {a: {path: "x\\0y"}}', "models.a.path is 'x\\x00y'; allowed is a path"),
        ("models: {a: {path: [x]}}", "models.a.path is a list; allowed is a path"),
        ("models: {a: {path: x, num_frames: 0}}", "num_frames is 0; allowed is 1 to 1000000"),
        (
            "models: {a: {model_path: path/to/model.onnx}}",
            "; it has to end in checkpoint/model_best.onnx, inside the avatar's folder",
        ),
        (
            "models: {a: {background_dir: /x/frames, crop_rects_path: /y/crop_rects.json}}",
            "models.a: background_dir belongs to the folder /x and crop_rects_path to /y;"
            " an avatar's files lie in one folder",
        ),
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
        ("output: {format: png}", "output.format is png; allowed is jpeg or raw"),
        ("output: {jpeg_quality: 101}", "output.jpeg_quality is 101; allowed is 1 to 100"),
        (
            "inference_server: {url: http://a:1}",
            "inference_server.url is http://a:1; allowed is host:port, several with commas",
        ),
        ("inference_server: {url: []}", "inference_server.url is a list; allowed is host:port"),
        ("inference_server: {timeout_seconds: 0}", "is 0; allowed is more than 0, up to 3600"),
        ("inference_server: {max_retries: -1}", "max_retries is -1; allowed is 0 to 100"),
        ("server: {queue_size: 5}", "server.queue_size is a key of the inference server"),
    ],
)
def test_the_compositing_servers_own_keys_are_checked(
    write: Write, text: str, message: str
) -> None:
    (found,) = messages(write(text), "compositing")
    assert message in found


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
        ("capacity: {max_models: 1}", "compositing"),
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
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
