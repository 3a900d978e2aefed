"""The emulated primitives do what NVIDIA's documents say of them. The oracle is NumPy."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.engine.emulator import Emulator
from tests.engine.emulator.trials import aligned, launch, nothing, tried

pytestmark = pytest.mark.slow

Emulate = Callable[..., Emulator]

SCHEDULES = range(6)


def test_every_half_becomes_the_float_that_it_is(emulate: Emulate) -> None:
    body = """
    const u32 n = 256 * block_x() + i;
    float* floats = (float*)out;
    floats[n] = half_to_float(((u16*)in)[n]);
    floats[65536 + n] = low(((u16*)in)[n] | 0x3c000000u);
    floats[131072 + n] = high((u32)((u16*)in)[n] << 16 | 0x3c00u);
    """
    halves = np.arange(65536, dtype=np.uint16)
    made = np.zeros((3, 65536), np.float32)
    emulate(tried(body)).launch(launch(halves, made, threads=256, grid=(256, 1, 1)))
    np.testing.assert_array_equal(made, np.tile(halves.view(np.float16).astype(np.float32), (3, 1)))


def test_floats_become_the_nearest_half(emulate: Emulate) -> None:
    body = """
    const u32 n = 256 * block_x() + i;
    u16* halves = (u16*)out;
    const float value = ((float*)in)[n];
    halves[n] = float_to_half(value);
    const u32 both = pack(value, -value);
    halves[65536 + n] = (u16)both;
    halves[131072 + n] = (u16)(both >> 16);
    const u32 positive = pack_relu(value, -value);
    halves[196608 + n] = (u16)positive;
    halves[262144 + n] = (u16)(positive >> 16);
    """
    random = np.random.default_rng(1)
    values = random.integers(0, 1 << 32, 65536, np.uint32).view(np.float32)
    # Half of them in the range of halves, a quarter of them in the middle between two halves, where
    # the even one is right; and what lies on both sides of the largest half's rounding.
    values[:32768] = random.standard_normal(32768) * 10 ** random.uniform(-8, 5, 32768)
    bits = random.integers(0, 0x7C00, 16384, np.uint16)
    below, above = (part.view(np.float16).astype(np.float32) for part in (bits - 1, bits))
    values[:16384] = np.where(bits > 0, (below + above) / 2, 0)
    values[:4] = [65519.996, 65520, -65520, 2.0**-25]
    values = np.nan_to_num(values, nan=1, posinf=np.inf, neginf=-np.inf)
    made = np.zeros((5, 65536), np.uint16)
    emulate(tried(body)).launch(launch(values, made, threads=256, grid=(256, 1, 1)))
    with np.errstate(over="ignore"):
        wanted = np.stack([values, values, -values, values, -values]).astype(np.float16)
    wanted[3:][wanted[3:] <= 0] = 0
    wanted[3:][np.isinf(wanted[3:])] = 65504
    np.testing.assert_array_equal(made, wanted.view(np.uint16))


def test_what_is_not_a_number_stays_so_but_in_relu(
    emulate: Emulate,
) -> None:
    body = """
    const float x = ((float*)in)[i];
    ((u32*)out)[i] = pack(x, x);
    ((u32*)out)[32 + i] = pack_relu(x, x);
    """
    made = np.zeros(128, np.float16)
    emulate(tried(body)).launch(launch(np.full(32, np.nan, np.float32), made))
    assert np.isnan(made[:64]).all()
    assert (made[64:] == 65504).all()


def test_numbers_are_rounded_compared_and_raised_as_gpus_do(emulate: Emulate) -> None:
    body = """
    const float* x = (float*)in;
    float* made = (float*)out;
    made[i] = exponential(x[i]);
    made[32 + i] = round_even(x[i]);
    made[64 + i] = larger(x[i], x[31 - i]);
    made[96 + i] = smaller(x[i], x[31 - i]);
    """
    values = np.linspace(-8, 7.5, 32, dtype=np.float32)
    values[3] = np.nan
    made = np.zeros((4, 32), np.float32)
    emulate(tried(body)).launch(launch(values, made))
    other = values[::-1]
    np.testing.assert_allclose(made[0], np.exp(values), rtol=1e-6)
    np.testing.assert_array_equal(made[1], np.rint(values))
    np.testing.assert_array_equal(made[2], np.fmax(values, other))
    np.testing.assert_array_equal(made[3], np.fmin(values, other))


def test_threads_know_their_place(emulate: Emulate) -> None:
    body = """
    const u32 block = block_x() + grid_x() * (block_y() + grid_y() * block_z());
    u32* there = (u32*)out + 4 * (40 * block + i);
    store16(there, Vec{{block_x(), block_y(), block_z(), i}});
    """
    made = aligned(np.zeros((2, 3, 5, 40, 4), np.uint32))
    for schedule in (0, 1):
        made[...] = 0
        emulate(tried(body)).launch(launch(nothing(), made, threads=40, grid=(5, 3, 2)), schedule)
        z, y, x, thread = np.indices((2, 3, 5, 40))
        np.testing.assert_array_equal(made, np.stack([x, y, z, thread], axis=-1))


def test_shared_memory_begins_as_not_a_number_in_every_block(emulate: Emulate) -> None:
    body = """
    u32* shared = (u32*)shared_memory();
    ((u32*)out)[32 * block_x() + i] = shared[i];
    shared[i] = i;
    """
    made = np.zeros((50, 32), np.uint32)
    emulate(tried(body)).launch(launch(nothing(), made, grid=(50, 1, 1)))
    assert (made == 0xFFFFFFFF).all()


# A (16, 16) and the transpose of B (16, 8), at 0 and 512 bytes of shared memory. Each of two warps
# multiplies its own.
PRODUCT = """
    u8* shared = shared_memory() + 768 * (i / 32);
    const u32 lane = i % 32;
    for (u32 part = lane; part < 48; part += 32)
        copy16(shared + 16 * part, in + 768 * (i / 32) + 16 * part, true);
    copies_commit();
    copies_wait<0>();
    barrier();
    float c[4] = {1, 2, 3, 4};
    u32 a[4], b[2];
    load_matrix_4(a, shared + 32 * (lane % 16) + 16 * (lane / 16));
    load_matrix_2(b, lane < 16 ? shared + 512 + 32 * (lane % 8) + 16 * (lane / 8) : nullptr);
    multiply(c, a, b[0], b[1]);
    float* made = (float*)out + 128 * (i / 32) + 8 * (lane / 4) + 2 * (lane % 4);
    made[0] = c[0], made[1] = c[1], made[64] = c[2], made[65] = c[3];
"""


@pytest.mark.parametrize(
    "options",
    [(), pytest.param(("-DPORTABLE",), marks=pytest.mark.slow)],
    ids=["switched", "portable"],
)
def test_matrices_are_loaded_and_multiplied(emulate: Emulate, options: tuple[str, ...]) -> None:
    random = np.random.default_rng(2)
    a = random.standard_normal((2, 16, 16)).astype(np.float16)
    b = random.standard_normal((2, 16, 8)).astype(np.float16)
    given = [np.concatenate([a[n].ravel(), b[n].T.ravel()]) for n in range(2)]
    emulator = emulate(tried(PRODUCT), *options)
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    wanted[:, :8] += np.tile([1, 2], 4)
    wanted[:, 8:] += np.tile([3, 4], 4)
    for schedule in SCHEDULES:
        made = np.zeros((2, 16, 8), np.float32)
        emulator.launch(launch(aligned(np.stack(given)), made, threads=64), schedule)
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


def fragments(registers: int) -> list[list[tuple[int, int]]]:
    """By lane and register of A, (row, column) of the first of its two elements, as PTX has it."""
    places = [(0, 0), (8, 0), (0, 8), (8, 8)][:registers]
    return [[(lane // 4 + r, 2 * (lane % 4) + c) for r, c in places] for lane in range(32)]


def test_a_product_takes_its_operands_from_the_lanes_that_ptx_names(emulate: Emulate) -> None:
    body = """
    const u32* given = (u32*)in + 6 * i;
    u32 a[4] = {given[0], given[1], given[2], given[3]};
    float c[4] = {0, 0, 0, 0};
    multiply(c, a, given[4], given[5]);
    float d[4], e[4] = {0, 0, 0, 0};
    multiply_add(d, a, given[4], given[5], c);
    multiply_8(e, a[0], a[1], given[4]);
    float* made = (float*)out + 12 * i;
    for (u32 j = 0; j < 4; ++j) made[j] = c[j], made[4 + j] = d[j], made[8 + j] = e[j];
    """
    random = np.random.default_rng(3)
    a = random.integers(-8, 9, (16, 16)).astype(np.float16)
    b = random.integers(-8, 9, (16, 8)).astype(np.float16)
    given = np.zeros((32, 6, 2), np.float16)
    for lane, places in enumerate(fragments(4)):
        for register, (row, column) in enumerate(places):
            given[lane, register] = a[row, column : column + 2]
        k, column = 2 * (lane % 4), lane // 4
        given[lane, 4], given[lane, 5] = b[k : k + 2, column], b[k + 8 : k + 10, column]
    made = np.zeros((32, 3, 2, 2), np.float32)
    emulate(tried(body)).launch(launch(given, made))
    left, right = a.astype(np.float32), b.astype(np.float32)
    product, half = left @ right, left[:, :8] @ right[:8]
    wanted = np.stack([product, 2 * product, half], axis=-1)
    for lane, places in enumerate(fragments(2)):
        for part, (row, column) in enumerate(places):
            np.testing.assert_array_equal(made[lane, :, part].T, wanted[row, column : column + 2])


def test_a_loaded_matrix_lies_in_the_lanes_that_ptx_names(emulate: Emulate) -> None:
    # Rows lie anywhere: here, backwards.
    body = """
    u8* shared = shared_memory();
    store16(shared + 16 * i, load16(in + 16 * i));
    u32 r[4], s[2];
    load_matrix_4(r, shared + 16 * (31 - i));
    load_matrix_2(s, shared + 16 * (31 - i % 16));
    for (u32 j = 0; j < 4; ++j) ((u32*)out)[6 * i + j] = r[j];
    for (u32 j = 0; j < 2; ++j) ((u32*)out)[6 * i + 4 + j] = s[j];
    """
    rows = aligned(np.arange(256, dtype=np.uint16).reshape(32, 8))
    made = np.zeros((32, 6, 2), np.uint16)
    emulate(tried(body)).launch(launch(rows, made))
    matrices = rows[::-1].reshape(4, 8, 4, 2)  # matrix, row, lane of the row, element
    wanted = matrices.reshape(4, 32, 2).transpose(1, 0, 2)
    np.testing.assert_array_equal(made, wanted[:, [0, 1, 2, 3, 0, 1]])


def test_a_copy_is_there_when_its_group_was_waited_for_and_not_before(emulate: Emulate) -> None:
    body = """
    u8* shared = shared_memory() + 64 * i;
    for (u32 group = 0; group < 3; ++group) {
        copy16(shared + 16 * group, in, group != 1);
        copies_commit();
    }
    copy16(shared + 48, in, true);
    u32* made = (u32*)out + 12 * i;
    const auto look = [&] {
        for (u32 group = 0; group < 4; ++group) *made++ = ((u32*)shared)[4 * group];
    };
    look();
    copies_wait<1>();
    look();
    copies_wait<0>();
    look();
    """
    given = aligned(np.full(16, 7, np.uint8))
    made = np.zeros((32, 3, 4), np.uint32)
    emulate(tried(body)).launch(launch(given, made))
    no, yes = 0xFFFFFFFF, 0x07070707
    # The last one is in no group that was committed.
    assert (made == [[no, no, no, no], [yes, 0, no, no], [yes, 0, yes, no]]).all()
    # It may as well arrive early.
    early = set()
    for schedule in SCHEDULES:
        if schedule:
            emulate(tried(body)).launch(launch(given, made), schedule)
            early |= set(np.unique(made[:, 0]).tolist())
    assert early == {no, yes, 0}
