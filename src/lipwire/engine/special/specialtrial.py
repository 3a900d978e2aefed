"""The trial of a specialised network, in a process of its own.

It compiles the network, compares its mouths with those of ONNX Runtime in float32 for frames that
were asked for, times both, and measures the memory. A child's, as it takes seconds of processor
time, which are to be nobody else's (it is nice), and as what fails in native code ends a process.

    python -m lipwire.engine.special.specialtrial SOURCE SHA256 LANES BLOB

specialises the network in the ONNX file SOURCE for LANES frames at a time, tries it with the frames
that come by standard input as a NumPy archive, writes it to BLOB, and prints what it found, as
JSON. The frames are pictures of a person and lie on no disk.
"""

import ctypes
import gc
import io
import json
import mmap
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from lipwire.domain import AudioWindows, Crops, LipwireError, Mouths
from lipwire.domain.pythonprocess import python_command
from lipwire.engine.compile.inspection import describe
from lipwire.engine.compile.optimising import check_sizes
from lipwire.engine.compile.sourcemodel import damage_refused, read_model
from lipwire.engine.compile.wrapping import wrap
from lipwire.engine.forms import FACE, MOUTH, SPEECH
from lipwire.engine.runtime import RUNTIME_ERRORS, first_line, open_session, session_options
from lipwire.engine.special.openvino import OpenVinoFailed, SpecialisedNetwork, specialise

_LIMIT_S: Final = 300.0
_LOOK_S: Final = 0.2
_ROUNDS: Final = 5
_NICE: Final = 19
_PR_SET_PDEATHSIG: Final = 1
_ESTIMATE: Final = 4
"""Where the system does not tell how much memory it takes, so many times its size on the disk."""
_FASTER: Final = 1.1
"""So many times as fast a specialised network has to be, for the memory that it takes."""
_MEAN: Final = 0.2
_APART: Final = 4
_WITHIN: Final = 0.999
_PSNR_DB: Final = 50.0
"""How much its mouths may differ from those in float32, of 255: by so much in the mean, such a
share of values by at most so much, and with such a ratio of signal to noise."""


_FAILURES: Final[tuple[type[Exception], ...]] = (
    LipwireError,
    OSError,
    *RUNTIME_ERRORS,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a trial of a specialised network: ``reason``, why the network is not to be run
    specialised, in one line (empty where it is to be); how many times as fast it is as ONNX Runtime
    in float32 (``speedup``); how much its mouths differ from ONNX Runtime's, in levels of 0 to 255
    (``mean`` difference; ``within``, the share of values that differ by at most 4, 0 to 1;
    ``psnr_db``, the ratio of signal to noise in dB); and how much memory it takes
    (``memory_bytes``). ``lasting`` says whether another trial would find the same; it is False
    where no trial could be made, or it ended early."""

    reason: str
    speedup: float = 0.0
    mean: float = 0.0
    within: float = 0.0
    psnr_db: float = 0.0
    memory_bytes: int = 0
    lasting: bool = True


def try_apart(
    source: Path,
    sha256: str,
    crops: Crops,
    windows: AudioWindows,
    lanes: int,
    blob: Path,
    cancelled: threading.Event | None = None,
) -> Verdict:
    """Specialise the network in the ONNX file ``source`` for ``lanes`` frames at a time and try it
    (``tried``) in a process of its own, wait for that process, and return the verdict. The network
    is written to the file ``blob`` where the trial could be made, whatever its result.

    ``sha256`` is the SHA-256 that the source has to have, in hexadecimal digits. ``crops``, (N,
    320, 320, 3) uint8, and ``windows``, (N, 32, 16, 16) float32, are the frames that it is tried
    with. Raises nothing: where the process cannot be started, fails, takes more than 300 s, or is
    ended because ``cancelled`` was set meanwhile, the verdict's ``reason`` says so.
    """
    command = python_command("-m", __name__, str(source), sha256, str(lanes), str(blob))
    given = io.BytesIO()
    np.savez(given, crops=crops, windows=windows)
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        reason = f"its trial cannot be started: {error.strerror or error}"
        return Verdict(reason, lasting=False)
    # Popen.communicate gives the rest to nobody where it is called again after its time.
    assert child.stdin is not None
    giving = threading.Thread(target=_give, args=(child.stdin, given.getvalue()), daemon=True)
    giving.start()
    child.stdin = None
    with child:
        until_s = time.monotonic() + _LIMIT_S
        try:
            while True:
                try:
                    said, told = child.communicate(timeout=_LOOK_S)
                    break
                except subprocess.TimeoutExpired:
                    if cancelled is not None and cancelled.is_set():
                        return Verdict("its trial was cancelled", lasting=False)
                    if time.monotonic() > until_s:
                        reason = f"its trial was not over after {_LIMIT_S:.0f} s"
                        return Verdict(reason, lasting=False)
        finally:
            child.kill()  # nothing where it has ended
            giving.join()
    try:
        return Verdict(**json.loads(said.decode("utf-8", "replace").splitlines()[-1]))
    except (IndexError, TypeError, ValueError):
        lines = told.decode("utf-8", "replace").strip().splitlines()
        last = f": {lines[-1][:200]}" if lines else ""
        reason = f"its trial ended with status {child.returncode}{last}"
        return Verdict(reason, lasting=False)


def _give(child: IO[bytes], frames: bytes) -> None:
    with suppress(OSError), child:  # it may have ended
        child.write(frames)


def tried(
    source: Path, sha256: str, crops: Crops, windows: AudioWindows, lanes: int, blob: Path
) -> Verdict:
    """Specialise the network in the ONNX file ``source`` for ``lanes`` frames at a time, write it
    to the file ``blob``, and return how its mouths, speed and memory compare with ONNX Runtime's in
    float32. ``sha256`` is the SHA-256 that the source has to have, in hexadecimal digits: the file
    may have been replaced since it was compiled. Where it has another SHA-256, or the network takes
    a fixed number of frames other than 1, nothing is written, and the verdict's ``reason`` says so.

    ``crops``, (N, 320, 320, 3) uint8, and ``windows``, (N, 32, 16, 16) float32, are frames that the
    avatar was asked for. Raises NotFound or AvatarInvalid where the source is missing or damaged,
    OpenVinoFailed where OpenVINO fails, one of ``RUNTIME_ERRORS`` where ONNX Runtime does, and
    OSError where ``blob`` cannot be written.
    """
    read = read_model(source)
    if read.sha256 != sha256:
        return Verdict("its ONNX file is another one than it was compiled from", lasting=False)
    with damage_refused(source.name):
        info = describe(read, source.name)
        if info.fixed_batch not in (None, 1):
            return Verdict(f"it takes {info.fixed_batch} frames at a time, needed is 1")
        wrapped = wrap(read.proto, info, "pixels", 1)
        check_sizes(wrapped, source.name)
        model: bytes = wrapped.SerializeToString()
    data = specialise(model, lanes)
    _give_memory_back()
    before = _resident_bytes()
    network = SpecialisedNetwork(data, lanes)
    grown_bytes = _resident_bytes() - before
    memory_bytes = max(len(data), grown_bytes) if before else _ESTIMATE * len(data)
    made = np.empty_like(crops)
    network.run(crops, windows, made)
    session = open_session(model, session_options(threads=1, optimisation="full"))
    wanted = _wanted(session, crops, windows)
    mean, within, psnr_db = _compared(made, wanted)
    speedup = _speedup(network, session, crops, windows)
    blob.write_bytes(data)
    reason = ""
    if mean > _MEAN or within < _WITHIN or psnr_db < _PSNR_DB:
        reason = (
            f"its mouths differ from those in float32 by {mean:.2f} of 255 in the mean,"
            f" {100 * (1 - within):.2f} % of the values by more than {_APART}, {psnr_db:.0f} dB;"
            f" allowed are {_MEAN}, {100 * (1 - _WITHIN):.1f} % and {_PSNR_DB:.0f} dB"
        )
    elif speedup < _FASTER:
        reason = f"it is {speedup:.2f} times as fast as in float32, wanted is {_FASTER}"
    return Verdict(reason, speedup, mean, within, psnr_db, memory_bytes)


def _wanted(session: Any, crops: Crops, windows: AudioWindows) -> Mouths:
    made = np.empty_like(crops)
    for number in range(len(crops)):
        one = slice(number, number + 1)
        made[one] = session.run([MOUTH], {FACE: crops[one], SPEECH: windows[one]})[0]
    return made


def _compared(made: Mouths, wanted: Mouths) -> tuple[float, float, float]:
    """Mean difference, share of values within 4, and the ratio of signal to noise in dB."""
    apart = np.abs(made.astype(np.int16) - wanted.astype(np.int16))
    squared = float(np.square(apart, dtype=np.float64).mean())
    psnr_db = 99.0 if not squared else min(99.0, 10 * float(np.log10(255**2 / squared)))
    return float(apart.mean()), float((apart <= _APART).mean()), psnr_db


def _speedup(
    network: SpecialisedNetwork, session: Any, crops: Crops, windows: AudioWindows
) -> float:
    """The median of alternated rounds, by processor time, which others on the machine change
    least."""
    made = np.empty_like(crops)
    ratios = []
    for _ in range(_ROUNDS):
        begun = time.process_time()
        _wanted(session, crops, windows)
        between = time.process_time()
        network.run(crops, windows, made)
        ratios.append((between - begun) / max(1e-9, time.process_time() - between))
    return statistics.median(ratios)


def _give_memory_back() -> None:
    """What compiling has freed would be taken again, and not be seen."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # the GNU C library has it
            ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes() -> int:
    """Memory that this process has now; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    return 0


def main(source: Path, sha256: str, lanes: int, blob: Path) -> None:
    """Run ``tried`` with these arguments and with the frames that come by standard input, a NumPy
    archive with ``crops`` and ``windows``, and print the verdict for the parent process as a line
    of JSON. Where the trial fails, the verdict's ``reason`` says why."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody waits any more
    with suppress(AttributeError, OSError):  # not everywhere
        os.nice(_NICE)
    try:
        with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as given:
            verdict = tried(source, sha256, given["crops"], given["windows"], lanes, blob)
    except OpenVinoFailed as error:
        verdict = Verdict(first_line(error))
    except _FAILURES as error:  # the file is being written, the disk is full, ...
        verdict = Verdict(first_line(error), lasting=False)
    print(json.dumps(asdict(verdict)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
