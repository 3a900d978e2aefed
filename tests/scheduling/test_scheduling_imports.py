import subprocess
import sys


def test_scheduling_loads_neither_networks_nor_servers() -> None:
    program = "import sys, lipwire.scheduling; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "lipwire.scheduling.scheduler" in loaded
    unwanted = ("onnx", "onnxruntime", "grpc", "lipwire.engine")
    assert [name for name in loaded if name.startswith(unwanted)] == []
