"""The demo avatar's network, loaded several times on one scheduler of this process."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lipwire.avatars import Avatar, find_avatar
from lipwire.engine import Engine, NoDriver
from lipwire.scheduling import Scheduler
from lipwire.serving import Devices, NetworkKey, Placement, ServerDevice, run_on
from lipwire.serving.networkfacts import CompiledNetwork
from lipwire.serving.networks import DeviceNetwork


@contextmanager
def demo_networks(count: int) -> Iterator[tuple[Scheduler[NetworkKey], list[DeviceNetwork]]]:
    """Give the ``with`` block a scheduler with a worker for each core, and the demo avatar's
    network ``count`` times, as those of as many avatars."""
    with tempfile.TemporaryDirectory(prefix="lipwire-bench-") as scratch, ExitStack() as stack:
        ignored = shutil.ignore_patterns(".lipwire", "evaluation")
        package = shutil.copytree(find_avatar("demo"), Path(scratch, "demo"), ignore=ignored)
        avatar = stack.enter_context(Avatar.open(package))
        engine = stack.enter_context(Engine(threads=1))
        cores = len(os.sched_getaffinity(0))
        scheduler = stack.enter_context(Scheduler(run_on(engine), workers=cores, queue_size=50))
        devices = stack.enter_context(
            Devices(
                [ServerDevice(engine, scheduler)],
                Placement("round-robin", [0], most=count),
                NoDriver("none"),
            )
        )
        compiled = CompiledNetwork(avatar.model_path)
        networks = [devices.network(f"avatar-{n}", compiled, avatar) for n in range(count)]
        for network in networks:
            stack.callback(network.close)
        yield scheduler, networks
