"""A device's memory: the stand-in runs out like one, and the gate lets nobody by."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lipwire.engine.memory import DeviceLost, DeviceOutOfMemory, Gate, HostMemory


def test_it_has_an_end_and_takes_back() -> None:
    memory = HostMemory(1000)
    region = memory.allocate(600)
    with pytest.raises(DeviceOutOfMemory):
        memory.allocate(401)
    assert memory.free_bytes() == 400
    memory.free(region)
    assert memory.allocate(1000).size_bytes == 1000


def test_what_goes_in_comes_out() -> None:
    memory = HostMemory(1 << 20)
    stream = memory.open_stream()
    first, second = memory.allocate(512), memory.allocate(512)
    block = memory.allocate_host(512)
    block[:] = np.arange(512) % 251
    memory.upload(stream, first.address, block)
    memory.copy(stream, second.address, first.address, 512)
    out = np.zeros(512, np.uint8)
    memory.download(stream, out, second.address)
    memory.wait(stream)
    assert (out == block).all()


def test_use_after_freeing_is_found() -> None:
    memory = HostMemory(1 << 20)
    region = memory.allocate(64)
    memory.free(region)
    with pytest.raises(AssertionError, match="not allocated"):
        memory.upload(0, region.address, np.zeros(64, np.uint8))
    with pytest.raises(AssertionError, match="not allocated"):
        memory.upload(0, memory.allocate(32).address, np.zeros(33, np.uint8))


def test_a_lost_device_says_so() -> None:
    memory = HostMemory(1 << 20)
    region = memory.allocate(64)
    memory.lost = True
    for use in (
        lambda: memory.allocate(1),
        lambda: memory.upload(0, region.address, np.zeros(64, np.uint8)),
        lambda: memory.wait(0),
    ):
        with pytest.raises(DeviceLost, match="has failed"):
            use()


def test_whoever_is_alone_is_alone() -> None:
    gate = Gate()
    inside = 0
    worst: list[int] = []
    lock = threading.Lock()

    def pass_through(number: int) -> None:
        nonlocal inside
        for turn in range(30):
            alone = (number + turn) % 5 == 0
            with gate.alone() if alone else gate.together():
                with lock:
                    inside += 1
                time.sleep(0.0002)
                with lock:
                    if alone:
                        worst.append(inside)
                    inside -= 1

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(pass_through, range(6)))
    assert set(worst) == {1}


def test_several_are_together_and_none_overtakes_one_who_waits_to_be_alone() -> None:
    gate = Gate()
    order: list[str] = []
    both = threading.Barrier(3)
    leave = threading.Event()

    def together() -> None:
        with gate.together():
            both.wait(60)
            assert leave.wait(60)

    def alone() -> None:
        with gate.alone():
            order.append("alone")

    def late() -> None:
        with gate.together():
            order.append("late")

    threads = [threading.Thread(target=together) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait(60)  # both are inside at once
    waiting = threading.Thread(target=alone)
    waiting.start()
    while not gate._waiting:
        time.sleep(0.001)
    latecomer = threading.Thread(target=late)
    latecomer.start()
    latecomer.join(0.05)
    assert order == []
    leave.set()
    for thread in (*threads, waiting, latecomer):
        thread.join(60)
    assert order == ["alone", "late"]
