"""``Programs`` of the emulator: kernels of our own on ``HostMemory``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.engine.emulator import Emulator, compile_kernels

from lipwire.engine.gpu.programs import KernelSource, Launch, Limits, Module, Recording

H200: Final = Limits((9, 0), 132, 232448)


class EmulatedPrograms:
    """Runs launches one after another, as a GPU does; compiles into ``folder``."""

    def __init__(
        self,
        folder: Path,
        *,
        schedule: int = 0,
        limits: Limits = H200,
    ) -> None:
        """``schedule`` is that of ``Emulator.launch``."""
        self.limits: Final = limits
        self.identity: Final = None
        self.loaded = 0
        """Modules and recordings that are not dropped yet."""
        self.recorded = 0
        self.runs = 0
        self._folder = folder
        self._schedule = schedule

    def load(self, source: KernelSource) -> Module:
        self.loaded += 1
        return Module(compile_kernels(source.text, self._folder), dict(source.kernels))

    def record(self, module: Module, launches: Sequence[Launch], stream: int) -> Recording:
        assert all(launch.kernel in module.functions for launch in launches)
        self.loaded += 1
        self.recorded += 1
        return Recording((module.handle, tuple(launches)))

    def run(self, recording: Recording, stream: int) -> None:
        emulator: Emulator
        emulator, launches = recording.handle
        self.runs += 1
        for launch in launches:
            emulator.launch(launch, self._schedule)

    def drop(self, held: Module | Recording) -> None:
        self.loaded -= 1
