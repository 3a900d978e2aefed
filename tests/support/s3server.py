"""A server with S3's protocol on loopback: moto's, as a process of its own."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
from tests.support.waiting import until

BUCKET: Final = "avatars"
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """moto's server with a bucket named ``avatars``. A context manager; where it is one, this
    process's environment has the credentials."""

    def __init__(self, folder: Path) -> None:
        """``folder`` takes its log."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: Final = taken.getsockname()[1]
        self._log: Final = folder / "moto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._patch = pytest.MonkeyPatch()
        self._numbers = itertools.count()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def new_url(self) -> str:
        """Of a store in it that is empty."""
        return f"s3://{BUCKET}/{next(self._numbers)}"

    def objects(self, url: str) -> dict[str, bytes]:
        """All that a store has, by key, as another client sees it."""
        import boto3

        client = boto3.client("s3", endpoint_url=self.endpoint_url)
        before = url.removeprefix(f"s3://{BUCKET}/") + "/"
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=before)
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        found = {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
        client.close()
        return {key.removeprefix(before): data for key, data in found.items()}

    def put(self, url: str, key: str, data: bytes) -> None:
        """Write a file of a store behind Lipwire's back."""
        import boto3

        client = boto3.client("s3", endpoint_url=self.endpoint_url)
        path = f"{url.removeprefix(f's3://{BUCKET}/')}/{key}"
        client.put_object(Bucket=BUCKET, Key=path, Body=data)
        client.close()

    def hang(self) -> None:
        """Have it take connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        for name, value in CREDENTIALS.items():
            self._patch.setenv(name, value)
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ)
            )
        until(self._answers, seen=self._log.read_text)
        request = urllib.request.Request(f"{self.endpoint_url}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=60).close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patch.undo()
        if self._process is not None and self._process.poll() is None:
            self.go_on()
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            urllib.request.urlopen(f"{self.endpoint_url}/moto-api/", timeout=5).close()
        except OSError:
            return False
        return True
