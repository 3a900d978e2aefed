"""The committed code is what the .proto files say; what clients were built from stands in it."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from packaging.requirements import Requirement

from lipwire.rpc.generated import compositing_pb2, inference_pb2, management_pb2
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "src" / "lipwire" / "rpc" / "generated"

# The messages of the deployment guide's API reference: name, number, type.
GUIDE = {
    "CompositeBatchRequest": """
        string model_id = 1; bytes visual_frames = 2; bytes audio_features = 3;
        int32 batch_size = 4; int32 start_frame_idx = 5;""",
    "CompositeBatchResponse": """
        bool success = 1; string error = 2; repeated bytes composited_frames = 3; int32 gpu_id = 4;
        float inference_time_ms = 5; float composite_time_ms = 6; float total_time_ms = 7;""",
    "HealthRequest": "",
    "HealthResponse": """
        bool healthy = 1; int32 loaded_models = 2; int32 max_models = 3;
        string inference_server_url = 4; bool inference_server_healthy = 5; string version = 6;""",
}
KINDS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_MESSAGE: "message",
    FieldDescriptor.TYPE_ENUM: "enum",
}


def sources(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*.py*") if path.suffix in (".py", ".pyi"))
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


@pytest.mark.slow
def test_generated_code_is_that_of_the_proto_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "proto" / "generate.py"), str(tmp_path)],
        check=True,
        capture_output=True,
    )
    fresh = sources(tmp_path / "lipwire" / "rpc" / "generated")
    assert len(fresh) > 10
    assert sources(GENERATED) == fresh, "stale: make proto"


@pytest.mark.parametrize("message", sorted(GUIDE))
def test_the_guides_fields_stand_and_ours_begin_at_20(message: str) -> None:
    wanted = {
        int(number): (name, kind, bool(repeated))
        for repeated, kind, name, number in re.findall(
            r"(repeated )?(\w+) (\w+) = (\d+);", GUIDE[message]
        )
    }
    fields = getattr(compositing_pb2, message).DESCRIPTOR.fields
    seen = {
        field.number: (field.name, KINDS[field.type], field.is_repeated)
        for field in fields
        if field.number < 20
    }
    assert seen == wanted


def on_the_wire(message: Descriptor, inside: str = "") -> Iterator[str]:
    """Every field of a message, those of messages in it included, as it is on the wire."""
    for field in message.fields:
        yield f"{inside}{field.name} = {field.number}: {label(field)}{KINDS[field.type]}"
        if field.message_type is not None:
            yield from on_the_wire(field.message_type, f"{inside}{field.name}.")


def label(field: FieldDescriptor) -> str:
    if field.is_repeated:
        return "repeated "
    return "optional " if field.has_presence and field.message_type is None else ""


def test_calls_and_fields_that_clients_were_built_from_stand() -> None:
    seen: dict[str, set[str]] = {}
    for module in (compositing_pb2, inference_pb2, mouths_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                path = f"/{service.full_name}/{method.name}"
                seen[f"{path} takes"] = set(on_the_wire(method.input_type))
                seen[f"{path} gives"] = set(on_the_wire(method.output_type))
    wanted: dict[str, set[str]] = {}
    for line in (Path(__file__).parent / "wire_of_clients.txt").read_text().splitlines():
        if line.startswith("/"):
            wanted[line] = current = set()
        else:
            current.add(line.strip())
    assert len(wanted) == 26
    assert {
        path: fields - seen[path] for path, fields in wanted.items() if fields - seen[path]
    } == {}


@pytest.mark.parametrize("module", [compositing_pb2, inference_pb2], ids=lambda m: m.__name__)
def test_a_services_module_has_the_messages_that_both_services_share(module: object) -> None:
    shared = management_pb2.DESCRIPTOR.message_types_by_name
    assert len(shared) == 10
    for name in shared:
        assert getattr(module, name) is getattr(management_pb2, name)


def test_what_the_generated_code_needs_is_the_floor_in_pyproject() -> None:
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = {need.name: need.specifier for need in map(Requirement, lines)}
    for file in GENERATED.rglob("*_pb2.py"):
        (version,) = re.findall(r"Protobuf Python Version: ([\d.]+)", file.read_text())
        assert str(floors["protobuf"]) == f">={version}"
    for file in GENERATED.rglob("*_pb2_grpc.py"):
        (version,) = re.findall(r"GRPC_GENERATED_VERSION = '([\d.]+)'", file.read_text())
        for name in ("grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status"):
            assert str(floors[name]) == f">={version}"
