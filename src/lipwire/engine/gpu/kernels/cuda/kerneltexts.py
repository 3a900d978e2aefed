"""The text that a device's compiler is given: templates from this folder, and uses of them."""

from importlib import resources
from typing import Final

from lipwire.engine.gpu.kernels.cuda.tiling import THREADS
from lipwire.engine.gpu.programs import HEADER_NAME, KernelSource

BLOCKS_AT_A_TIME: Final = 3
"""On a multiprocessor; the registers of all kernels are held to it."""
_FILES: Final = ("pictures.cuh", "prepare.cuh", "block.cuh", "layer.cuh")
PREPARING: Final = ("speech_picture", "doubled_picture", "neighbours_picture")
"""Kernels that are no templates."""


class CannotLower(Exception):
    """There are no kernels for a network's plan; the message is one line that says why."""


class KernelTexts:
    """Collects the kernels that a network needs, each once, and writes their CUDA source."""

    def __init__(self, most_shared_bytes: int) -> None:
        """``most_shared_bytes`` is how many bytes of shared memory a block of threads can have on
        the device."""
        self._most_shared_bytes = most_shared_bytes
        self._uses: dict[tuple[str, str, int], str] = {}

    def name(self, template: str, arguments: str, shared_bytes: int) -> str:
        """Return the name of the kernel that runs ``template``, such as kernel_0. The kernel is
        added to the source, unless an earlier call had the same arguments.

        ``template`` is a C++ type, a template of this folder's files with its arguments filled in,
        such as ``Layer<COPIED, ...>``. ``arguments`` is the name of the C struct that the kernel
        takes, ``shared_bytes`` how many bytes of shared memory a block of threads needs. Raises
        CannotLower where that is more than the device has.
        """
        if shared_bytes > self._most_shared_bytes:
            raise CannotLower(
                f"{template} takes {shared_bytes} bytes of shared memory, there are"
                f" {self._most_shared_bytes}"
            )
        use = template, arguments, shared_bytes
        return self._uses.setdefault(use, f"kernel_{len(self._uses)}")

    @property
    def templates(self) -> dict[str, str]:
        """The C++ template that each kernel runs, with its arguments filled in, by the kernel's
        name."""
        return {name: template for (template, _, _), name in self._uses.items()}

    @property
    def source(self) -> KernelSource:
        """The CUDA source of all kernels that ``name`` has added, as one text to be compiled."""
        folder = resources.files("lipwire.engine.gpu.kernels.cuda")
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
