"""Servers behind HAProxy, on ports of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.conftest import WAIT_S, Served, Serving
from tests.support.ownports import own_port

from lipwire.rpc.backends import RemoteBackend
from lipwire.rpc.connection import CompositingConnection

TOKEN = "a token of sixteen characters or more"
DRAIN_DELAY_S = 5
"""Twice what the configuration asks for: health checks may be late on a busy machine."""


@dataclass
class Cluster:
    """The servers, by their names in HAProxy's configuration, and HAProxy."""

    start: Serving
    models: Path
    folder: Path
    ports: Mapping[str, int]
    servers: dict[str, Served] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Of the frontend for clients."""
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def inference_address(self) -> str:
        return f"127.0.0.1:{self.ports['inference']}"

    def begin(self, name: str) -> None:
        """Start the server ``name`` at its ports."""
        kind = name.rpartition("-")[0]
        config = self.folder / f"{name}.yaml"
        text = f"metrics: {{port: {self.ports[name + '-health']}}}\n"
        text += f"server: {{drain_delay: {DRAIN_DELAY_S}}}\n"
        if kind == "compositing":
            text += f"inference_server: {{url: '{self.inference_address}', timeout_seconds: 120}}\n"
            text += f"web: {{enabled: true, port: {self.ports[name + '-web']}, token: {TOKEN}}}\n"
            text += "live: {drain_timeout: 300}\n"
        config.write_text(text)
        at = ["--models-root", self.models, "--host", "127.0.0.1", "--port", self.ports[name]]
        served = self.start(f"{kind}-server", "-c", config, *at)
        self.servers[name] = served
        served.wait_for(r"[Ll]istening on port")

    def variables(self) -> dict[str, str]:
        """For HAProxy."""
        told = {
            "GRPC_BIND": self.address,
            "INFERENCE_BIND": self.inference_address,
        }
        for name in SERVERS:
            variable = name.upper().replace("-", "_")
            told[variable] = f"127.0.0.1:{self.ports[name]}"
            told[f"{variable}_HEALTH_PORT"] = str(self.ports[f"{name}-health"])
        for number in (1, 2):
            told[f"WEB_{number}"] = f"127.0.0.1:{self.ports[f'compositing-{number}-web']}"
        return told

    def loaded(self, name: str) -> set[str]:
        """The avatars that the server ``name`` has in memory, as it says itself."""
        address = f"127.0.0.1:{self.ports[name]}"
        if name.startswith("inference"):
            with RemoteBackend([address], timeout_s=WAIT_S) as backend:
                return {model.model_id for model in backend.models()}
        with CompositingConnection(address) as connection:
            return {model.model_id for model in connection.stats("", WAIT_S).models}


def own_ports(names: Sequence[str]) -> dict[str, int]:
    """A port for each, all different."""
    ports: set[int] = set()
    while len(ports) < len(names):
        ports.add(own_port())
    return dict(zip(names, ports, strict=True))


SERVERS = ("inference-1", "inference-2", "inference-3", "compositing-1", "compositing-2")
