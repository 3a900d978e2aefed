"""A whole cluster: HAProxy with the configuration of ``deploy``, five servers on machines of their
own, a store, Redis, keys and certificates."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.support.cluster.cast import Cast
from tests.support.cluster.hosts import GRPC_PORT, HUB, INFERENCE_PORT, Host, Switch
from tests.support.haproxy import Haproxy, haproxy, tls_variables
from tests.support.redisserver import PROGRAM as REDIS
from tests.support.s3server import BUCKET, CREDENTIALS
from tests.support.waiting import until

from lipwire.avatars.store.pushing import publish, push
from lipwire.bench.chaos.servers import Process
from lipwire.domain import Operation, Unavailable
from lipwire.domain.closing import Closing
from lipwire.rpc.credentials import ClientSecurity, ClientTls
from lipwire.rpc.workers.place import socket_folder
from lipwire.security.devcerts import make_certificates
from lipwire.security.keys import KeyFile
from lipwire.stores.objects import ObjectStore

INFERENCE: Final = ("inference-1", "inference-2", "inference-3")
COMPOSITING: Final = ("compositing-1", "compositing-2")
NAME: Final = "lipwire"
"""In the servers' certificates."""
HEALTH_PORT: Final = 9464
WEB_PORT: Final = 8080
_DISK_MB: Final = 192
_CACHE_GB: Final = 0.125
_CERTIFICATES: Final = 64
_MAY: Final[tuple[Operation, ...]] = ("live", "render", "read", "deliver")
_FOLDERS: Final = {"XDG_CACHE_HOME": "cache", "TMPDIR": "tmp"}


class Program(Closing):
    """Somebody else's program, on a machine of its own: killed, stopped and started again."""

    def __init__(self, command: Sequence[str], log: Path, **environ: str) -> None:
        self._command = command
        self._log = log
        self._environ = {**os.environ, **environ}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=self._environ
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()


class Cluster(Closing):
    """The cluster, running. A context manager; for namespaces of their own (``hosts.apart``)."""

    proxy: Haproxy

    def __init__(self, folder: Path, cast: Cast) -> None:
        """``folder`` takes all that it writes; the avatars of ``cast`` are published."""
        self.folder: Final = folder
        self.servers: dict[str, Process] = {}
        self.hosts: dict[str, Host] = {}
        self._numbers = itertools.count(11)
        self._certificates = itertools.count()
        self._certs = folder / "certs"
        for name in ("certs", "disks", "logs", "made"):
            (folder / name).mkdir()
        self._make_certificates()
        self._keys = KeyFile(folder / "keys.json")
        self.keys: Final = {
            tenant: self._keys.create(
                tenant, tenant=tenant, operations=_MAY, avatars=[f"{tenant}-*"]
            )
            for tenant in cast.tenants
        }
        self._token = self._keys.create("compositing", operations=["infer", "read", "manage"])
        with ExitStack() as stack:
            Switch()
            self.store_host, self.store = self._start_store(stack)
            self._publish(cast)
            self.redis_host, self.redis = self._start_redis(stack)
            for name in (*INFERENCE, *COMPOSITING):
                self.hosts[name] = stack.enter_context(self._host(name))
            for name in INFERENCE:
                self._add(name, self._inference_server())
            for name, url in zip(COMPOSITING, self._ways(), strict=True):
                self._add(name, self._compositing_server(self.hosts[name], url))
            for server in self.servers.values():
                stack.callback(server.close)
                server.start()
            sockets = stack.enter_context(socket_folder())
            self.proxy = stack.enter_context(haproxy(sockets, self._variables()))
            self.until_whole()
            self._stack = stack.pop_all()

    @property
    def address(self) -> str:
        """Of HAProxy's port for clients."""
        return f"{HUB}:{GRPC_PORT}"

    def security(self, tenant: str) -> ClientSecurity:
        """How a client of ``tenant`` connects."""
        return ClientSecurity(
            ClientTls(self._certs / "ca.crt", server_name=NAME), self.keys[tenant]
        )

    def until_whole(self) -> None:
        """Until all servers are up, and have their whole share of what comes."""
        self.proxy.until_up("networks")
        self.proxy.until_up("batches")

    def disk(self, name: str) -> Path:
        """What the server ``name`` writes to."""
        return self.hosts[name].disk

    def change_certificate(self) -> Path:
        """Have all use another certificate, by another authority, that clients know as well, and
        return it."""
        source = self.folder / "made" / str(next(self._certificates))
        both = self._certs / "both.pem.new"
        both.write_text((source / "server.crt").read_text() + (source / "server.key").read_text())
        both.rename(self._certs / "both.pem")
        for name in ("server.crt", "server.key"):
            new = self._certs / f"{name}.new"
            shutil.copyfile(source / name, new)
            new.rename(self._certs / name)
        return self._certs / "server.crt"

    def ports(self) -> dict[str, tuple[str, int]]:
        """Every port with a certificate, by name."""
        found = {"HAProxy": (HUB, GRPC_PORT)}
        for name, server in self.servers.items():
            found[name] = (server.host, server.port)
            found[f"{name}, numbers"] = (server.host, HEALTH_PORT)
            if name in COMPOSITING:
                found[f"{name}, page"] = (server.host, WEB_PORT)
        return found

    def end(self) -> None:
        """Drain the servers, compositing servers first."""
        for name in (*COMPOSITING, *INFERENCE):
            self.servers[name].drain()

    def close(self) -> None:
        self._stack.close()

    def _host(self, name: str) -> Host:
        return Host(next(self._numbers), self.folder / "disks" / name, _DISK_MB)

    def _add(self, name: str, section: str) -> None:
        host = self.hosts[name]
        for each in ("cache", "tmp"):
            (host.disk / each).mkdir()
        config = self.folder / f"{name}.yaml"
        config.write_text(self._common(host) + section)
        kind = name.rpartition("-")[0]
        environ = {key: str(host.disk / each) for key, each in _FOLDERS.items()}
        self.servers[name] = Process(
            name,
            self.folder / "logs",
            [f"{kind}-server", "-c", str(config)],
            host=host.address,
            port=GRPC_PORT if kind == "compositing" else INFERENCE_PORT,
            within=host.within,
            LIPWIRE_INFERENCE_SERVER__TOKEN=self._token if kind == "compositing" else "",
            **CREDENTIALS,
            **environ,
        )

    def _common(self, host: Host) -> str:
        return f"""\
server:
  tls: {{cert: {self._certs}/server.crt, key: {self._certs}/server.key}}
  drain_delay: 5
metrics: {{host: {host.address}, port: {HEALTH_PORT}}}
models_root: {self._url}
store:
  endpoint_url: {self._endpoint_url}
  cache_folder: {host.disk}/packages
  cache_gb: {_CACHE_GB}
security:
  keys_file: {self.folder}/keys.json
  audit_file: {host.disk}/audit.jsonl
"""

    def _inference_server(self) -> str:
        return "onnx: {precision: float32}\ncapacity: {max_models_per_gpu: 6}\n"

    def _compositing_server(self, host: Host, url: str) -> str:
        return f"""\
  limits:
    requests_per_minute: 1000000
    live_minutes_per_month: 1000000
    minutes_file: {host.disk}/minutes.json
inference_server:
  url: {url}
  tls: {{ca: {self._certs}/ca.crt, server_name: {NAME}}}
capacity: {{max_models: 6}}
live: {{reconnect_grace: 10, drain_timeout: 1}}
redis: {{url: "redis://{self.redis_host.address}:6379/0"}}
web: {{enabled: true, host: {host.address}, port: {WEB_PORT}, hosts: "*"}}
renders: {{folder: {host.disk}/renders}}
"""

    def _ways(self) -> tuple[str, str]:
        """How each compositing server reaches inference servers: one knows all, one HAProxy."""
        every = ", ".join(f"{self.hosts[name].address}:{INFERENCE_PORT}" for name in INFERENCE)
        return (f'"{every}"', f'"{HUB}:{INFERENCE_PORT}"')

    def _variables(self) -> dict[str, str]:
        """For HAProxy."""
        told = tls_variables(self._certs)
        told["GRPC_BIND"] = self.address
        told["INFERENCE_BIND"] = f"{HUB}:{INFERENCE_PORT}"
        for name, server in self.servers.items():
            variable = name.upper().replace("-", "_")
            told[variable] = f"{server.host}:{server.port}"
            told[f"{variable}_HEALTH_PORT"] = str(HEALTH_PORT)
        for number, name in enumerate(COMPOSITING, 1):
            told[f"WEB_{number}"] = f"{self.hosts[name].address}:{WEB_PORT}"
        return told

    def _make_certificates(self) -> None:
        known = []
        for number in range(_CERTIFICATES):
            made = self.folder / "made" / str(number)
            make_certificates(made, [NAME], now=datetime.now(UTC))
            known.append((made / "ca.crt").read_text())
        (self._certs / "ca.crt").write_text("".join(known))
        self.change_certificate()

    def _start_store(self, stack: ExitStack) -> tuple[Host, Program]:
        host = stack.enter_context(self._host("store"))
        self._url = f"s3://{BUCKET}/avatars"
        self._endpoint_url = f"http://{host.address}:5000"
        command = [sys.executable, "-m", "moto.server", "-H", host.address, "-p", "5000"]
        store = Program([*host.within, *command], self.folder / "logs" / "store", **CREDENTIALS)
        stack.enter_context(store)
        store.start()
        os.environ.update(CREDENTIALS)
        return host, store

    def _start_redis(self, stack: ExitStack) -> tuple[Host, Program]:
        host = stack.enter_context(self._host("redis"))
        command = [str(REDIS), "--bind", host.address, "--protected-mode", "no", "--save", ""]
        command += ["--dir", str(host.disk)]
        redis = Program([*host.within, *command], self.folder / "logs" / "redis")
        stack.enter_context(redis)
        redis.start()
        return host, redis

    def _publish(self, cast: Cast) -> None:
        import boto3

        client = boto3.client("s3", endpoint_url=self._endpoint_url)

        def made() -> bool:
            try:
                client.create_bucket(Bucket=BUCKET)
            except Exception as error:
                if "Connect" not in type(error).__name__:
                    raise
                return False
            return True

        until(made)
        client.close()
        store = ObjectStore(self._url, endpoint_url=self._endpoint_url)
        for name, package in cast.packages():
            try:
                publish(store, name, push(store, name, package).version)
            except Unavailable as error:
                raise RuntimeError(f"{name} cannot be pushed: {error}") from error
