"""The rules and dashboards for Prometheus and Grafana, with a real Prometheus and real servers."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
import yaml
from tests.support.numbers import Read
from tests.support.waiting import until

from lipwire.config import load_compositing_config, load_inference_config
from lipwire.config.metrics import MetricsSettings
from lipwire.config.securitysettings import SecuritySettings
from lipwire.domain import LipwireError
from lipwire.observe.metrics import ServerMetrics
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.server.ports import held_port
from lipwire.session.live import SessionSettings
from lipwire.wiring.metricsport import metrics_port
from lipwire.wiring.servers import open_compositing_server, open_inference_server, open_serve

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "lipwire.rules.yml"
CONFIG: Final = ROOT / "deploy" / "prometheus" / "prometheus.yml"
MAKE: Final = ROOT / "deploy" / "grafana" / "make.py"
OPERATIONS: Final = ROOT / "docs" / "operations.md"
WINDOW_S: Final = 6
SCRAPED_EVERY: Final = "500ms"
WINDOW: Final = np.zeros((32, 16, 16), np.float32).tobytes()
ON_GPUS: Final = {"lipwire_gpu_"}
"""What machines without GPUs have no numbers of."""

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="needs prometheus")


def groups() -> list[dict[str, Any]]:
    return list(yaml.safe_load(RULES.read_text())["groups"])


def alerts() -> dict[str, dict[str, Any]]:
    """All alerts by their names."""
    return {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}


def make() -> Any:
    spec = importlib.util.spec_from_file_location("make_dashboards", MAKE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def panels() -> Iterator[tuple[str, str]]:
    """The title and a query of each panel, as the files have them."""
    for file in sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.stem}: {panel['title']}", target["expr"]


def names_in(expression: str) -> set[str]:
    """The metrics of Lipwire's that an expression names."""
    return set(re.findall(r"\b(?:lipwire|process)[_:][a-z_:0-9]+", expression))


# -- the files -------------------------------------------------------------------------------------


@needs_promtool
def test_prometheus_takes_the_files() -> None:
    told = subprocess.run(
        ["promtool", "check", "config", str(CONFIG)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.slow
@needs_promtool
def test_alerts_fire_where_they_should(tmp_path: Path) -> None:
    """Those of GPUs, which are not there to be provoked, and the others at their limits."""
    file = tmp_path / "test.yml"
    file.write_text(
        (Path(__file__).parent / "lipwire.rules.test.yml")
        .read_text()
        .replace("lipwire.rules.yml", str(RULES))
    )
    told = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("name", ["operator", "capacity", "tenant"])
def test_dashboards_are_what_their_tables_say(name: str) -> None:
    file = ROOT / "deploy" / "grafana" / "dashboards" / f"{name}.json"
    assert file.read_text() == make().dashboard(name)


def test_each_alert_leads_to_what_to_do() -> None:
    headings = re.findall(r"^#+ (.+)$", OPERATIONS.read_text(), re.MULTILINE)
    for name, rule in alerts().items():
        assert name in headings
        assert rule["annotations"]["runbook_url"].endswith(f"/operations.html#{name.lower()}")


def test_the_operations_guide_explains_each_number(compiled_template: Path, tmp_path: Path) -> None:
    shutil.copytree(compiled_template, tmp_path / "models" / "a")
    with serving(tmp_path) as (_, metrics):
        families = Read(metrics.read()).families
    told = OPERATIONS.read_text()
    assert [name for name in families if f"`{name}" not in told and "process_" not in name] == []


# -- with servers ----------------------------------------------------------------------------------


@contextmanager
def serving(
    tmp_path: Path, yaml: str = ""
) -> Iterator[tuple[CompositingConnection, ServerMetrics]]:
    """``lipwire serve`` with the avatars of ``models``, and its numbers."""
    file = tmp_path / "serve.yaml"
    file.write_text(f"models_root: {tmp_path / 'models'}\n{yaml}\n")
    metrics = ServerMetrics()
    environ = {
        "LIPWIRE_SERVER__PORT": "0",
        "LIPWIRE_WEB__PORT": "0",
        "LIPWIRE_SPEECH__VOICE": "none",
    }
    with (
        open_serve(
            load_compositing_config(file, environ),
            load_inference_config(None, {}),
            tell=lambda *_: None,
            metrics=metrics,
        ) as server,
        CompositingConnection(f"127.0.0.1:{server.port}") as connection,
    ):
        yield connection, metrics


@contextmanager
def numbers_of(metrics: ServerMetrics, port: int) -> Iterator[int]:
    """The port on which ``metrics`` are read."""
    config = load_compositing_config(None, {})
    settings = MetricsSettings(host="127.0.0.1", port=port)
    with metrics_port(
        settings,
        config.server,
        SecuritySettings(),
        read=metrics.read,
        ready=lambda: True,
        tell=lambda *_: None,
    ) as listening:
        yield listening


class Prometheus:
    """A Prometheus that scrapes ports of this machine twice a second, with rules whose times are as
    short as ``WINDOW_S``."""

    def __init__(self, folder: Path, targets: dict[str, int], limits: dict[str, str]) -> None:
        rules = RULES.read_text()
        for name, value in limits.items():
            rules, count = re.subn(
                rf"(record: lipwire:limit:{name}\n\s+expr: vector)\([^)]+\)",
                rf"\g<1>({value})",
                rules,
            )
            assert count == 1
        rules = re.sub(r"\[\d+m\]", f"[{WINDOW_S}s]", rules)
        rules = re.sub(r"for: \d+m", "for: 0s", rules)
        (folder / "rules.yml").write_text(rules)
        config = {
            "global": {"scrape_interval": SCRAPED_EVERY, "evaluation_interval": SCRAPED_EVERY},
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {
                    "job_name": "lipwire",
                    "static_configs": [
                        {"targets": [f"127.0.0.1:{port}"], "labels": {"server": server}}
                        for server, port in targets.items()
                    ],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with held_port("127.0.0.1", 0) as port:
            self._address = f"127.0.0.1:{port}"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self._address}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        until(self._answers, seen=self._log.read_text)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression has now."""
        where = f"http://{self._address}/api/v1/query?{urlencode({'query': expression})}"
        with urlopen(where, timeout=60) as answer:
            told = json.load(answer)
        assert told["status"] == "success"
        return list(told["data"]["result"])

    def firing(self) -> set[str]:
        """The alerts that fire now."""
        with urlopen(f"http://{self._address}/api/v1/alerts", timeout=60) as answer:
            told = json.load(answer)["data"]["alerts"]
        return {each["labels"]["alertname"] for each in told if each["state"] == "firing"}

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with suppress(URLError), urlopen(f"http://{self._address}/-/ready", timeout=60):
            return True
        return False


@contextmanager
def asking(ask: Callable[[int], object]) -> Iterator[None]:
    """Call ``ask`` with 0, 1, 2 and so on during the block, about ten times a second."""
    ended = threading.Event()

    def run() -> None:
        count = 0
        while not ended.wait(0.1):
            with suppress(LipwireError):
                ask(count)
            count += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def composite(connection: CompositingConnection, name: str) -> object:
    request = CompositeBatchRequest(model_id=name, audio_features=WINDOW, batch_size=1)
    return connection.composite(request, 60)


@pytest.mark.slow
@needs_prometheus
def test_each_panel_has_data_and_alerts_fire_and_resolve(
    compiled_template: Path, tmp_path: Path
) -> None:
    for name in "ab":
        shutil.copytree(compiled_template, tmp_path / "models" / name)
    limits = {"inference_seconds": "0.0000001", "first_frame_seconds": "600"}
    with ExitStack() as stack:
        connection, metrics = stack.enter_context(
            serving(
                tmp_path,
                "live: {max_sessions: 1}\ncapacity: {max_models: 1}\n"
                f"renders: {{folder: {tmp_path / 'renders'}}}",
            )
        )
        file = tmp_path / "apart.yaml"
        with held_port("127.0.0.1", 0) as inference_port, held_port("127.0.0.1", 0) as its_metrics:
            pass
        file.write_text(
            f"models_root: {tmp_path / 'models'}\n"
            f"inference_server: {{url: '127.0.0.1:{inference_port}'}}\n"
        )
        frames = ServerMetrics()
        apart = stack.enter_context(
            open_compositing_server(
                load_compositing_config(file, {"LIPWIRE_SERVER__PORT": "0"}),
                tell=lambda *_: None,
                metrics=frames,
            )
        )
        asked_apart = stack.enter_context(CompositingConnection(f"127.0.0.1:{apart.port}"))
        targets = {
            "serve": stack.enter_context(numbers_of(metrics, 0)),
            "compositing": stack.enter_context(numbers_of(frames, 0)),
            "inference": its_metrics,
        }
        prometheus = Prometheus(tmp_path, targets, limits)
        stack.callback(prometheus.close)

        def fires(*names: str) -> None:
            until(lambda: prometheus.firing() >= set(names), seen=prometheus.firing)

        def resolves(*names: str) -> None:
            until(lambda: not prometheus.firing() & set(names), seen=prometheus.firing)

        # The inference server is not there yet.
        with asking(lambda _: composite(asked_apart, "a")):
            fires("LipwireDown", "LipwireNotHealthy", "LipwireErrors")
        stack.enter_context(inference_server(tmp_path, inference_port, its_metrics))
        with asking(lambda _: composite(asked_apart, "a")):
            resolves("LipwireDown", "LipwireNotHealthy", "LipwireErrors")

        # Two avatars have one place, and a session takes the only one for sessions.
        client = stack.enter_context(AvatarConnection(connection.address))
        with (
            asking(lambda count: composite(connection, "ab"[count % 2])),
            client.converse("a", SessionSettings()),
        ):
            fires("LipwireInferenceSlow", "LipwireCacheMisses", "LipwireSessionsFull")
        with client.converse("a", SessionSettings()):  # one has ended, so that rates have two
            unseen = dict(panels())

            def seen(expression: str) -> bool:
                text = expression.replace("$__rate_interval", f"{WINDOW_S}s")
                return bool(prometheus.query(text.replace("$instance", ".*")))

            def all_seen() -> bool:
                for title, expression in panels():
                    if not any(kind in expression for kind in ON_GPUS) and not seen(expression):
                        unseen[title] = expression
                        return False
                return True

            with asking(lambda _: composite(connection, "a")):
                until(all_seen, seen=lambda: list(unseen.items())[-1])
        resolves("LipwireInferenceSlow", "LipwireCacheMisses", "LipwireSessionsFull")

        # What rules and panels name is there, or recorded by a rule.
        told = {name for each in (metrics, frames) for name in names_of(each)}
        recorded = {
            rule["record"] for group in groups() for rule in group["rules"] if "record" in rule
        }
        wanted = {name for _, expression in panels() for name in names_in(expression)}
        wanted |= {
            n for group in groups() for rule in group["rules"] for n in names_in(rule["expr"])
        }
        not_configured = {
            "lipwire_audit_lost_total",
            "lipwire_redis_away",
            "lipwire_store_away",
        }
        assert {n for n in wanted - told - recorded - not_configured if "_gpu_" not in n} == set()


def names_of(metrics: ServerMetrics) -> set[str]:
    read = Read(metrics.read())
    return {sample.name for sample in read.samples} | set(read.families)


def inference_server(
    tmp_path: Path, port: int, metrics_port_number: int
) -> AbstractContextManager[object]:
    stack = ExitStack()
    file = tmp_path / "inference.yaml"
    file.write_text(f"models_root: {tmp_path / 'models'}\nserver: {{port: {port}}}\n")
    metrics = ServerMetrics()
    stack.enter_context(
        open_inference_server(
            load_inference_config(file, {}), tell=lambda *_: None, metrics=metrics
        )
    )
    stack.enter_context(numbers_of(metrics, metrics_port_number))
    return stack
