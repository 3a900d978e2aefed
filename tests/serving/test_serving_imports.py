import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_serving_core_loads_no_grpc() -> None:
    program = "import sys, lipwire.serving; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "lipwire.serving.devices" in loaded
    # ONNX brings google.protobuf, which is no messages of a server's.
    unwanted = ("grpc", "google.rpc", "lipwire.rpc")
    assert [name for name in loaded if name.startswith(unwanted)] == []
