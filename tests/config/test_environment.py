from pathlib import Path

import pytest

from lipwire.config import check_config, load_compositing_config, load_inference_config
from lipwire.domain import AvatarFiles, InvalidInput

GUIDE = Path(__file__).parent / "guide"


def test_a_variable_goes_before_the_file_and_the_file_before_the_default() -> None:
    environ = {"LIPWIRE_SERVER__PORT": ":6000", "LIPWIRE_CAPACITY__EVICTION_POLICY": "lru"}
    config = load_inference_config(GUIDE / "inference.yaml", environ)
    assert config.server.port == 6000
    assert config.capacity.eviction_policy == "lru"
    assert config.gpus.count == 1  # the file's; the default is auto
    assert load_inference_config(None, environ).server.port == 6000


def test_each_kind_of_value_can_be_set() -> None:
    config = load_inference_config(
        None,
        {
            "LIPWIRE_SERVER__WORKERS": "2",
            "LIPWIRE_ONNX__USE_CUDA": "strict",
            "LIPWIRE_GPUS__ENABLED": "false",
            "LIPWIRE_CAPACITY__IDLE_TIMEOUT_MINUTES": "0.5",
            "LIPWIRE_LOGGING__LEVEL": "debug",
        },
    )
    assert (config.server.workers, config.onnx.use_cuda, config.gpus.enabled) == (
        2,
        "strict",
        False,
    )
    assert (config.capacity.idle_timeout_s, config.logging.level) == (30, "debug")
    urls = {"LIPWIRE_INFERENCE_SERVER__URL": "a:1,b:2"}
    assert load_compositing_config(None, urls).inference_server.url == ("a:1", "b:2")


def test_one_environment_serves_both_servers() -> None:
    environ = {
        "LIPWIRE_SERVER__WORKERS": "2",
        "LIPWIRE_SERVER__QUEUE_SIZE": "7",  # the inference server's alone
        "LIPWIRE_OUTPUT__FORMAT": "raw",  # the compositing server's alone
        "LIPWIRE_COMPOSITING__SERVER__WORKERS": "3",
        "LIPWIRE_INFERENCE__SERVER__PORT": "6001",
        "LIPWIRE_COMPOSITING__SERVER__PORT": "6002",
    }
    inference = load_inference_config(None, environ)
    compositing = load_compositing_config(None, environ)
    assert (inference.server.port, inference.server.workers) == (6001, 2)
    assert inference.server.queue_size == 7
    assert (compositing.server.port, compositing.server.workers) == (6002, 3)
    assert compositing.output.format == "raw"


def test_paths_start_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "config.yaml"
    file.write_text("models_root: avatars\n")
    monkeypatch.chdir(tmp_path)
    assert load_inference_config(file, {}).models_root == tmp_path / "etc" / "avatars"
    environ = {"LIPWIRE_MODELS_ROOT": "avatars"}
    assert load_inference_config(file, environ).models_root == tmp_path / "avatars"
    environ = {"LIPWIRE_MODELS_ROOT": "~/avatars"}
    assert load_inference_config(file, environ).models_root == Path.home() / "avatars"


def test_models_of_the_file_can_be_set_by_name(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("models:\n  Anna: {path: /a}\n  ben: {path: /b}\n")
    environ = {"LIPWIRE_MODELS__ANNA__PRELOAD": "true", "LIPWIRE_MODELS__ben__PATH": "/c"}
    config = load_inference_config(file, environ)
    assert config.models["Anna"].preload
    assert config.files == {
        "Anna": AvatarFiles(folder=Path("/a")),
        "ben": AvatarFiles(folder=Path("/c")),
    }
    with pytest.raises(InvalidInput, match="LIPWIRE_MODELS__CARL__PATH: the file has no model"):
        load_inference_config(file, {"LIPWIRE_MODELS__CARL__PATH": "/c"})


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LIPWIRE_SERVER__PORT", "x", "server.port is x; allowed is 0 to 65535"),
        ("LIPWIRE_SERVER__PROT", "1", "no such setting; the nearest is LIPWIRE_SERVER__PORT"),
        ("LIPWIRE_SERVER__PORT__X", "1", "no such setting; the nearest is LIPWIRE_SERVER__PORT"),
        ("LIPWIRE_SERVER", "{port: 1}", "no such setting; the nearest is LIPWIRE_SERVER__PORT"),
        ("LIPWIRE_INFERENCE__OUTPUT__FORMAT", "raw", "no such setting"),
        ("LIPWIRE_SERVER____PORT", "1", "no such setting"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        load_inference_config(None, {variable: value})
    assert str(raised.value).startswith(f"{variable}: {message}")


@pytest.mark.parametrize(
    "environ",
    [
        {"LIPWIRE_SERVER__PORT": ""},
        {"LIPWIRE_AVATARS": "/a", "LIPWIRE_DEBUG": "1", "PATH": "/bin"},
        {"LIPWIRE_HOME_OF_SOMETHING_ELSE": "x"},
        {"LIPWIRE_COMPOSITING__SERVER__PORT": "junk"},
    ],
)
def test_what_is_empty_or_for_others_changes_nothing(environ: dict[str, str]) -> None:
    assert load_inference_config(None, environ) == load_inference_config(None, {})


def test_what_was_set_is_told() -> None:
    environ = {"LIPWIRE_SERVER__PORT": "1", "LIPWIRE_INFERENCE__SERVER__PORT": "2"}
    overrides = check_config(None, environ, "inference").overrides
    assert [(each.variable, each.key) for each in overrides] == [
        ("LIPWIRE_INFERENCE__SERVER__PORT", "server.port")
    ]


def test_a_variable_that_looks_like_a_setting_is_told(caplog: pytest.LogCaptureFixture) -> None:
    environ = {
        "LIPWIRE_SERVER_PORT": "6000",
        "LIPWIRE_MODEL_ROOT": "/avatars",
        "LIPWIRE_OUTPUT_FORMAT": "raw",
    }
    assert load_inference_config(None, environ).server.port == 50051
    assert [record.message for record in caplog.records] == [
        "LIPWIRE_MODEL_ROOT is no setting; did you mean LIPWIRE_MODELS_ROOT?",
        "LIPWIRE_OUTPUT_FORMAT is no setting; did you mean LIPWIRE_OUTPUT__FORMAT?",
        "LIPWIRE_SERVER_PORT is no setting; did you mean LIPWIRE_SERVER__PORT?",
    ]


def test_what_kubernetes_says_of_a_service_is_no_setting(caplog: pytest.LogCaptureFixture) -> None:
    for service in ("LIPWIRE", "LIPWIRE_SERVER", "LIPWIRE_INFERENCE", "LIPWIRE_MODELS"):
        environ = {
            f"{service}_SERVICE_HOST": "10.0.0.1",
            f"{service}_SERVICE_PORT": "50051",
            f"{service}_SERVICE_PORT_GRPC": "50051",
            f"{service}_PORT": "tcp://10.0.0.1:50051",
            f"{service}_PORT_50051_TCP": "tcp://10.0.0.1:50051",
            f"{service}_PORT_50051_TCP_PROTO": "tcp",
            f"{service}_PORT_50051_TCP_PORT": "50051",
            f"{service}_PORT_50051_TCP_ADDR": "10.0.0.1",
        }
        assert load_inference_config(None, environ) == load_inference_config(None, {})
        assert load_compositing_config(None, environ) == load_compositing_config(None, {})
    assert not caplog.records
