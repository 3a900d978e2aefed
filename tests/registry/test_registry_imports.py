import subprocess
import sys


def test_the_registry_loads_neither_networks_nor_servers() -> None:
    program = "import sys, lipwire.registry; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "lipwire.registry.registry" in loaded
    unwanted = ("onnx", "grpc", "google", "lipwire.avatars", "lipwire.engine", "lipwire.rpc")
    assert [name for name in loaded if name.startswith(unwanted)] == []
