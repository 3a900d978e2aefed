"""The GPU's benchmark goes through all its parts on a stand-in, and goes on when one fails."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from tests.support.hostmemory import HostMemory

from lipwire.bench import gpu, gpuspeed
from lipwire.bench.gpu import PARTS, TITLES, Part, run_gpu
from lipwire.bench.gpurig import OtherRoad, Rig, Row
from lipwire.bench.gpuspeed import traffic_bytes
from lipwire.domain import DependencyMissing
from lipwire.engine import Device, Tuning, cuda_problem
from lipwire.engine.gpu.kernels import kernelcache
from lipwire.engine.gpu.memory.devicememory import Bytes
from lipwire.engine.gpu.memory.sharedexclusivelock import SharedExclusiveLock
from lipwire.engine.gpu.programs import KernelSource, Launch, Limits, Module, Recording
from lipwire.engine.runtime import CudaOptions


@pytest.mark.slow
def test_every_part_measures_something_on_a_stand_in(tmp_path: Path) -> None:
    told: list[str] = []
    memory = HostMemory(1 << 34)
    report = run_gpu(
        device=Device.cpu(),
        memory=memory,
        widths=None,
        quick=True,
        tell=lambda part: told.append(part.name),
        out=tmp_path / "report.json",
    )
    elsewhere = "RuntimeError: this network runs in ONNX Runtime here"
    assert [(part.name, part.problem) for part in report.parts] == [
        (name, elsewhere if name in ("recording", "launches") else "") for name in PARTS
    ]
    assert all(part.rows for part in report.parts if not part.problem)
    rows = {part.name: part.rows for part in report.parts}
    assert all(int(row["most"]) <= 2 for row in (*rows["faces"], *rows["onnx-faces"]))
    assert {row["road"] for row in rows["faces"]} == {"ONNX Runtime"}, "it is said what ran"
    assert rows["speed"][0] == {"road": "kernels", "problem": "it ran in ONNX Runtime"}
    assert {row["precision"] for row in rows["speed"][1:]} == {"single", "half"}
    assert {row["way"] for row in rows["plain"]} == {"weights fed", "weights inside"}
    assert len({row["swap"] for row in rows["swaps"] if "swap" in row}) == 5
    assert {row.get("provider") for row in rows["placement"]} == {"CPU", None}
    assert rows["live"][0]["requests"] > 0  # type: ignore[operator]
    assert rows["live"][0]["MB of crops"] > 0  # type: ignore[operator]
    kept = {row["crops"]: row["hits"] for row in rows["crops"] if "crops" in row}
    assert kept == {"brought": "none", "kept": "100%"}
    assert rows["crops"][-1]["MB of crops"] == round(8 * 320 * 320 * 3 / 1e6, 1)
    assert told == list(PARTS)
    written = json.loads((tmp_path / "report.json").read_text())
    assert [part["name"] for part in written["parts"]] == list(PARTS)
    assert (memory.regions, memory.host_blocks) == (0, 0)


class Counted:
    """Programs that do nothing: how often each recording was run, by its launches."""

    limits = Limits((9, 0), 132, 232448)
    identity = None

    def __init__(self) -> None:
        self.runs: dict[tuple[str, ...], int] = {}
        self.held = 0
        self.allocation_lock: SharedExclusiveLock | None = None
        """Passed by loading and recording, as the real ones do: a caller that holds it would wait
        for itself."""

    def load(self, source: KernelSource) -> Module:
        self._pass_gate()
        self.held += 1
        return Module(None, dict(source.kernels))

    def record(self, module: Module, launches: Sequence[Launch], stream: int) -> Recording:
        self._pass_gate()
        self.held += 1
        return Recording(tuple(launch.kernel for launch in launches))

    def run(self, recording: Recording, stream: int) -> None:
        self.runs[recording.handle] = self.runs.get(recording.handle, 0) + 1

    def _pass_gate(self) -> None:
        assert self.allocation_lock is not None
        assert not self.allocation_lock._exclusive

    def drop(self, held: Module | Recording) -> None:
        self.held -= 1


@pytest.mark.slow
def test_kernels_are_measured_where_onnx_runtime_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernelcache, "why_not_the_same", lambda *_: None)
    programs = Counted()
    memory = HostMemory(1 << 32, programs=programs, onnx_problem="it is not built for it")
    programs.allocation_lock = memory.allocation_lock
    report = run_gpu(
        device=Device.cpu(),
        memory=memory,
        widths=(16, 16, 16, 16, 16),
        parts=(
            "recording",
            "launches",
            "speed",
            "swaps",
            "residents",
            "crops",
            "live",
            "apart",
            "ways",
        ),
        quick=True,
        networks=tmp_path,
    )
    recording, launches, *others, ways = report.parts
    assert [part.problem for part in report.parts[:-1]] == [""] * 8
    missing = {"problem": f"ONNX Runtime does not run on cpu: {memory.onnx_problem()}"}
    for part in others:
        roads = [row for row in part.rows if "road" in row]
        assert roads, part.name
        assert {row["road"] for row in roads if "problem" not in row} == {"kernels"}
        assert [row for row in roads if "problem" in row] == (
            [{"road": "ONNX Runtime"} | missing] if part.name in ("speed", "swaps") else []
        )
    assert [(row["batch"], row["avatars"]) for row in recording.rows] == [(4, 1), (4, 4), (1, 1)]
    count = recording.rows[0]["kernels"]
    assert [row["number"] for row in launches.rows[:-1]] == list(range(int(count)))
    assert all(row["what"] for row in launches.rows)
    whole = sum(float(row["us a frame"]) for row in launches.rows[:-1])
    assert launches.rows[-1]["us a frame"] == pytest.approx(whole, abs=0.1)
    assert {len(launched) for launched in programs.runs} == {1, count}
    assert any("runs in kernels of Lipwire's own" in note for note in recording.notes)
    assert ways.problem == "left out: ONNX Runtime does not run on cpu: it is not built for it"
    assert {row["frames a run"] for row in others[-1].rows} == {4.0}
    assert (memory.regions, memory.host_blocks, programs.held) == (0, 0, 0)
    assert (tmp_path / "0.onnx").exists(), "left for the next time"


@pytest.mark.slow
@pytest.mark.parametrize("problem", [None, "it is not built for it"])
def test_a_network_that_runs_elsewhere_is_not_measured(tmp_path: Path, problem: str | None) -> None:
    memory = HostMemory(1 << 32, onnx_problem=problem)
    rig = Rig(tmp_path, Device.cpu(), memory, None, quick=True, end_s=1e9, clock_s=lambda: 0.0)
    tuning = Tuning(batch_sizes=(1,))
    elsewhere = "the processor" if problem else "ONNX Runtime"
    with pytest.raises(OtherRoad, match=elsewhere), rig.loaded("kernels", tuning):
        pass
    if problem is None:
        with rig.loaded("ONNX Runtime", tuning) as (_, model):
            assert model.on_gpu
    else:
        with pytest.raises(OtherRoad, match=problem), rig.loaded("ONNX Runtime", tuning):
            pass


def test_a_part_that_fails_is_reported_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_way(rig: Rig) -> Iterator[Row]:
        yield {"a": 1}
        raise RuntimeError("CUDA failure 999")

    def fine(rig: Rig) -> Iterator[Row]:
        yield {"b": 2}

    monkeypatch.setattr(gpu, "PARTS", {"floor": half_way, "speed": fine})
    report = run_gpu(
        device=Device.cpu(), memory=HostMemory(1), parts=("floor", "speed"), out=tmp_path / "r.json"
    )
    assert report.parts[0] == Part(
        "floor",
        TITLES["floor"],
        report.parts[0].seconds,
        [{"a": 1}],
        "RuntimeError: CUDA failure 999",
    )
    assert report.parts[1].rows == [{"b": 2}]
    assert json.loads(report.as_json()) == json.loads((tmp_path / "r.json").read_text())


def test_parts_beyond_the_limit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def slow(rig: Rig) -> Iterator[Row]:
        now[0] += 100
        yield {}

    monkeypatch.setattr(gpu, "PARTS", {"floor": slow, "speed": slow})
    report = run_gpu(
        device=Device.cpu(),
        memory=HostMemory(1),
        parts=("floor", "speed"),
        limit_s=60,
        clock_s=lambda: now[0],
    )
    assert [part.problem for part in report.parts] == ["", "left out: 60 s were over"]


@pytest.mark.skipif(cuda_problem() is None, reason="there is a GPU here")
def test_without_a_gpu_one_line_says_why() -> None:
    with pytest.raises(
        DependencyMissing, match="bench gpu needs a GPU, and cuda:0 cannot be used: "
    ) as caught:
        run_gpu()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_way_that_fails_is_one_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = iter([None, 2.0, 3.0, 1.0, 4.0, 5.0, 6.0, 7.0])

    def speed(*_: object) -> Row:
        result = next(found)
        if result is None:
            raise RuntimeError("no kernel")
        return {"ms a frame": result}

    monkeypatch.setattr(gpuspeed, "_speed_of", speed)
    memory = HostMemory(1 << 34)
    rig = Rig(tmp_path, Device.cpu(), memory, None, quick=True, end_s=1e9, clock_s=lambda: 0.0)
    rows = list(gpuspeed.ways(rig))
    assert "no kernel" in str(rows[0]["problem"])
    assert rig.options.graphs  # the fourth was the quickest
    assert not rig.options.channels_last


def test_traffic_counts_what_layers_read_and_write() -> None:
    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["seen"]),
        helper.make_node("Relu", ["seen"], ["lit"]),
        helper.make_node("Add", ["lit", "seen"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", "N", 4, 10, 10), value("w", 8, 4, 1, 1)],
        [value("y", "N", 8, 10, 10)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    convolution, addition = 4 * 400 + 8 * 16 + 8 * 400, 3 * 8 * 400
    assert traffic_bytes(model) == convolution + addition


@pytest.mark.slow
def test_a_way_that_spoils_faces_is_not_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    times = iter([5.0, 4.0, 1.0, 6.0, 6.0, 6.0, 6.0, 6.0])
    monkeypatch.setattr(gpuspeed, "_speed_of", lambda *_: {"ms a frame": next(times)})

    class Spoilt(HostMemory):
        spoil = False

        def download(self, stream: int, target: Bytes, address: int) -> None:
            super().download(stream, target, address)
            if self.spoil:
                target ^= 255

    memory = Spoilt(1 << 34)
    rig = Rig(tmp_path, Device.cpu(), memory, None, quick=True, end_s=1e9, clock_s=lambda: 0.0)
    rows = []
    for number, row in enumerate(gpuspeed.ways(rig)):
        rows.append(row)
        memory.spoil = number == 1  # the next one is the third, and the quickest
    assert [row.get("problem", "") for row in rows] == ["", "", "wrong faces", *[""] * 5]
    assert rig.options == CudaOptions(channels_last=True)
    again = Rig(tmp_path, Device.cpu(), memory, None, quick=True, end_s=1e9, clock_s=lambda: 0.0)
    assert again.options == rig.options, "another process uses it too"
