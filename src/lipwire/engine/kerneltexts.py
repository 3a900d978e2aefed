"""The text that a device's compiler is given: the templates in ``kernels``, and uses of them."""

from importlib import resources
from typing import Final

from lipwire.engine.programs import HEADER_NAME, KernelSource
from lipwire.engine.tiling import THREADS

BLOCKS_AT_A_TIME: Final = 3
"""On a multiprocessor; the registers of all kernels are held to it."""
_FILES: Final = ("pictures.cuh", "prepare.cuh", "block.cuh", "layer.cuh")
PREPARING: Final = ("speech_picture", "doubled_picture", "neighbours_picture")
"""Kernels that are no templates."""


class CannotLower(Exception):
    """The kernels do not do this plan; one line says why."""


class KernelTexts:
    """Uses of templates, each once."""

    def __init__(self, most_shared_bytes: int) -> None:
        """``most_shared_bytes`` is what a block of threads can have."""
        self._most_shared_bytes = most_shared_bytes
        self._uses: dict[tuple[str, str, int], str] = {}

    def name(self, template: str, arguments: str, shared_bytes: int) -> str:
        """The kernel that runs ``template``, which takes an ``arguments``. Raises CannotLower."""
        if shared_bytes > self._most_shared_bytes:
            raise CannotLower(
                f"{template} takes {shared_bytes} bytes of shared memory, there are"
                f" {self._most_shared_bytes}"
            )
        use = template, arguments, shared_bytes
        return self._uses.setdefault(use, f"kernel_{len(self._uses)}")

    @property
    def templates(self) -> dict[str, str]:
        """What each kernel runs, by its name."""
        return {name: template for (template, _, _), name in self._uses.items()}

    @property
    def source(self) -> KernelSource:
        folder = resources.files("lipwire.engine") / "kernels"
        entries = [
            f"typedef {template} {name}_program;\n"
            f'static_assert(sizeof({name}_program::Shared) == {shared_bytes}, "as counted");\n'
            f"KERNEL({name}, {THREADS}, {BLOCKS_AT_A_TIME}, {arguments})"
            f" {{ {name}_program(args).run(); }}\n"
            for (template, arguments, shared_bytes), name in self._uses.items()
        ]
        return KernelSource(
            "\n".join([*((folder / name).read_text("utf-8") for name in _FILES), *entries]),
            (folder / HEADER_NAME).read_text("utf-8"),
            {
                **dict.fromkeys(PREPARING, 0),
                **{name: shared_bytes for (_, _, shared_bytes), name in self._uses.items()},
            },
        )
