import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.support.waiting import until

from lipwire.engine.gpu.memory.sharedexclusivelock import SharedExclusiveLock


def test_nobody_else_holds_it_while_it_is_held_exclusively() -> None:
    held = SharedExclusiveLock()
    holders = 0
    worst: list[int] = []
    lock = threading.Lock()

    def hold(number: int) -> None:
        nonlocal holders
        for turn in range(30):
            exclusively = (number + turn) % 5 == 0
            with held.exclusive() if exclusively else held.shared():
                with lock:
                    holders += 1
                time.sleep(0.0002)  # others try to come in meanwhile
                with lock:
                    if exclusively:
                        worst.append(holders)
                    holders -= 1

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(hold, range(6)))
    assert set(worst) == {1}


def test_several_share_it_and_none_overtakes_one_who_waits_to_hold_it_exclusively() -> None:
    held = SharedExclusiveLock()
    order: list[str] = []
    both = threading.Barrier(3)
    leave = threading.Event()

    def share() -> None:
        with held.shared():
            both.wait(60)
            assert leave.wait(60)

    def exclude() -> None:
        with held.exclusive():
            order.append("exclusive")

    def late() -> None:
        with held.shared():
            order.append("late")

    threads = [threading.Thread(target=share) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait(60)  # both hold it
    waiting = threading.Thread(target=exclude)
    waiting.start()
    until(lambda: held._waiting)
    latecomer = threading.Thread(target=late)
    latecomer.start()
    latecomer.join(0.05)
    assert order == []
    leave.set()
    for thread in (*threads, waiting, latecomer):
        thread.join(60)
    assert order == ["exclusive", "late"]
