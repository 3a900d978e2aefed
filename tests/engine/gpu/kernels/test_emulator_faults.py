"""What a kernel leaves to chance depends on the schedule; what it must not do ends its run."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tests.engine.emulator import Emulator
from tests.engine.emulator.trials import BUFFERS, Launch, aligned, kernel, launch, nothing, tried

pytestmark = pytest.mark.slow

Emulate = Callable[..., Emulator]

SCHEDULES = range(6)

NEIGHBOUR = """
    u32* shared = (u32*)shared_memory();
    shared[i] = i;
    {barrier}
    ((u32*)out)[i] = shared[(i + {step}) % {threads}];
"""


@pytest.mark.parametrize(("threads", "step"), [(32, 1), (96, 40)], ids=["in-a-warp", "of-warps"])
def test_a_missing_barrier_shows_as_results_that_depend_on_the_schedule(
    emulate: Emulate, threads: int, step: int
) -> None:
    def results(barrier: str) -> set[bytes]:
        emulator = emulate(tried(NEIGHBOUR.format(barrier=barrier, threads=threads, step=step)))
        made = np.zeros(threads, np.uint32)
        found = set()
        for schedule in SCHEDULES:
            emulator.launch(launch(nothing(), made, threads=threads), schedule)
            found.add(made.tobytes())
        return found

    right = np.roll(np.arange(threads, dtype=np.uint32), -step).tobytes()
    assert results("barrier();") == {right}
    assert len(results("")) > 2


def test_a_schedule_gives_the_same_result_each_time(emulate: Emulate) -> None:
    emulator = emulate(tried(NEIGHBOUR.format(barrier="", threads=96, step=40)))
    made = np.zeros((2, 96), np.uint32)
    for part in made:
        emulator.launch(launch(nothing(), part, threads=96), 5)
    np.testing.assert_array_equal(made[0], made[1])


def test_blocks_differ_in_their_order_and_come_in_different_orders(emulate: Emulate) -> None:
    body = """
    u32* shared = (u32*)shared_memory();
    *shared = i;
    barrier();
    ((u32*)out)[1 + block_x()] = *shared;
    *(u32*)out = block_x();
    """
    emulator = emulate(tried(body))
    lasts, lanes = set(), set()
    for schedule in SCHEDULES:
        made = np.zeros(5, np.uint32)  # so few blocks run one after another
        emulator.launch(launch(nothing(), made, grid=(4, 1, 1)), schedule)
        lasts.add(int(made[0]))
        lanes.add(len(set(made[1:].tolist())))
    assert lasts == {0, 3}
    assert max(lanes) > 1


def test_a_copy_that_a_block_did_not_wait_for_does_not_arrive_in_the_next(
    emulate: Emulate,
) -> None:
    body = """
    copies_wait<0>();
    ((u32*)out)[32 * block_x() + i] = *(u32*)(shared_memory() + 16 * i);
    copy16(shared_memory() + 16 * i, in, true);
    copies_commit();
    """
    made = np.zeros((40, 32), np.uint32)
    emulate(tried(body)).launch(launch(aligned(nothing()), made, grid=(40, 1, 1)))
    assert (made == 0xFFFFFFFF).all()


WRONG = {
    "no_barrier_of_some_lanes": (
        "if (i != 3) barrier();",
        "thread 3: stopped at its end, lane 0 of its warp at barrier",
    ),
    "no_barrier_of_a_warp": (
        "if (i < 64) barrier();",
        "1 of the 3 warps ended and did not reach the barrier of the others",
    ),
    "instruction_of_some_lanes": (
        "u32 r[2]; if (i % 32 < 16) load_matrix_2(r, shared_memory());",
        "thread (16|48|80): stopped at its end, lane 0 of its warp at load_matrix_2",
    ),
    "two_instructions": (
        "u32 r[4]; float c[4];"
        "if (i == 40) load_matrix_4(r, shared_memory()); else multiply(c, r, 0, 0);",
        "thread 40: stopped at load_matrix_4, lane 0 of its warp at multiply",
    ),
    "misaligned_load16": ("load16(in + 8);", "load16 of 0x.* is not aligned to 16 bytes"),
    "misaligned_store16": (
        "store16(out + 4, Vec{});",
        "store16 of 0x.* is not aligned to 16 bytes",
    ),
    "copy16_to": ("copy16(shared_memory() + 8, in, true);", "copy16 to of 0x.* not aligned"),
    "copy16_from": ("copy16(shared_memory(), in + 8, false);", "copy16 from of 0x.* not aligned"),
    "misaligned_row": (
        "u32 r[4]; load_matrix_4(r, shared_memory() + (i == 70 ? 2 : 0));",
        "thread 70: load_matrix_4 of 0x.* is not aligned",
    ),
    "row_past_the_end": (
        "u32 r[4]; load_matrix_4(r, shared_memory() + 4096 - 16 * 64 + 16 * i);",
        "thread 64: load_matrix_4 of byte 4096 of 4096 bytes of shared memory",
    ),
    "row_elsewhere": ("u32 r[2]; load_matrix_2(r, in);", "load_matrix_2 of 0x.* not shared memory"),
    "copy16_elsewhere": ("copy16(out, in, true);", "copy16 to 0x.*, which is not shared memory"),
    "copy16_from_shared": (
        "copy16(shared_memory(), shared_memory() + 16, true);",
        "copy16 from 0x.*, which is shared memory",
    ),
    "copy16_past_the_end": (
        "copy16(shared_memory() + 16 * i + 4096 - 16 * 95, in, true);",
        "thread 95: copy16 to of byte 4096 of 4096",
    ),
    "store16_before": ("store16(shared_memory() - 16, Vec{});", "store16 of byte -16 of 4096"),
    "written_before": (
        "shared_memory()[-1] = 0;",
        r"block \(0, 0, 0\) wrote beside its 4096 bytes of shared memory",
    ),
    "written_past_the_end": (
        "shared_memory()[4096] = 0;",
        r"block \(0, 0, 0\) wrote beside its 4096 bytes of shared memory",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_gpu_does_not_allow_is_reported(emulate: Emulate, name: str) -> None:
    # All in one text: to compile it takes as long as to compile one of them.
    kernels = (kernel(name, body) for name, (body, _) in WRONG.items())
    emulator = emulate(BUFFERS + "".join(kernels))
    made = aligned(nothing())
    wanted = launch(made, made, threads=96)
    for schedule in (0, 3):
        with pytest.raises(AssertionError, match=WRONG[name][1]) as caught:
            emulator.launch(replace(wanted, kernel=name), schedule)
        assert str(caught.value).startswith(f"{name}: block (0, 0, 0)")


def test_an_instruction_of_a_whole_warp_needs_all_of_its_lanes(emulate: Emulate) -> None:
    emulator = emulate(tried("u32 r[2]; load_matrix_2(r, shared_memory());"))
    with pytest.raises(AssertionError, match="load_matrix_2 by a warp of 8 threads, not 32"):
        emulator.launch(launch(nothing(), nothing(), threads=40))


def test_a_wrong_block_among_many_is_the_one_named(emulate: Emulate) -> None:
    emulator = emulate(tried("if (block_x() != 300 || i != 0) barrier();"))
    for schedule in (0, 1):
        with pytest.raises(
            AssertionError, match=r"block \(300, 0, 0\), thread 1: stopped at barrier"
        ):
            emulator.launch(launch(nothing(), nothing(), grid=(1000, 1, 1)), schedule)
    # And nothing of it is left for the next.
    made = np.zeros(96, np.uint32)
    emulate(tried(NEIGHBOUR.format(barrier="barrier();", threads=96, step=1))).launch(
        launch(nothing(), made, threads=96)
    )
    np.testing.assert_array_equal(made, np.roll(np.arange(96), -1))


@pytest.mark.parametrize(
    ("grid", "threads"),
    [((0, 1, 1), 32), ((1, 65536, 1), 32), ((1, 1, 65536), 32), ((1, 1, 1), 0), ((1, 1, 1), 513)],
)
def test_a_shape_that_no_gpu_runs_is_refused(
    emulate: Emulate, grid: tuple[int, int, int], threads: int
) -> None:
    with pytest.raises(AssertionError, match="tried: cannot be launched as"):
        emulate(tried("")).launch(launch(nothing(), nothing(), grid=grid, threads=threads))


def test_arguments_are_of_the_size_that_the_kernel_takes(emulate: Emulate) -> None:
    with pytest.raises(AssertionError, match="tried takes 16 bytes of arguments, not 15"):
        emulate(tried("")).launch(Launch(bytes(15)))


def test_a_text_that_is_not_c_is_refused_with_what_the_compiler_says(emulate: Emulate) -> None:
    with pytest.raises(AssertionError, match="'nowhere' was not declared"):
        emulate(tried("nowhere();"))
