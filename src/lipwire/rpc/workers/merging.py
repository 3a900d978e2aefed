"""What the processes of a server said, made into one answer. Messages in, messages out.

Both services' answers are taken: their fields have the same names.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from lipwire.domain import LipwireError, Overloaded, Unavailable
from lipwire.rpc.backends.statuses import error_of_answer
from lipwire.rpc.errors import public_message, refusal
from lipwire.rpc.generated.management_pb2 import UnloadModelResponse

Answer = Any
"""A response of CompositingService or InferenceService."""

_ROW_SUMS: Final = ("memory_bytes", "uses", "in_use", "loaded_in")
_SUMS: Final = (
    "loaded_models",
    "max_models",
    "memory_bytes",
    "hits",
    "misses",
    "evictions",
    "failures",
    "workers",
)
_NETWORK_SUMS: Final = ("loaded_networks", "network_memory_bytes")
"""Absent where a process was not asked about networks."""


def one_effect(
    index: int, own: Answer | LipwireError, others: Mapping[int, Answer | LipwireError]
) -> Answer:
    """Return one answer of all processes of a server to LoadModel or UnloadModel, which is to take
    effect in every process that is there.

    ``own`` is the answer or error of this process, of number ``index``, and ``others`` are the
    answers or errors of the other processes by their numbers, from 0. A process whose error is
    Unavailable is not there: that is no failure, and it is named in ``detail``. Where a process
    fails, the answer carries its error, and says which process it was and in how many the call took
    effect. Raises that error where no process gave an answer, and where it is an error that an
    answer cannot carry (``is_answer``).
    """
    there = {index: own} | _there(others)
    errors = {number: error for number, said in there.items() if (error := _error_of(said))}
    if errors:
        error = _one_error(errors, len(there))
        kind = next((type(s) for s in there.values() if not isinstance(s, LipwireError)), None)
        if kind is None:
            raise error
        return refusal(kind, error)
    answer = _copy(own)
    for said in _good(others):
        if isinstance(answer, UnloadModelResponse):
            answer.unloaded |= said.unloaded
            continue
        answer.load_time_ms = max(answer.load_time_ms, said.load_time_ms)
        if answer.HasField("model"):
            _add_row(answer.model, said.model)
    answer.detail = _not_there(others)
    return answer


def one_list(own: Answer, others: Mapping[int, Answer | LipwireError]) -> Answer:
    """Return one answer of all processes of a server to ListModels: ``own``, a page of this
    process, with the number of processes that have each model loaded added up from ``others``, the
    answers or errors by process number. Errors count for nothing and are named in ``detail``."""
    answer = _copy(own)
    rows = {row.model_id: row for row in answer.models}
    for said in _good(others):
        answer.workers += said.workers
        for row in said.models:
            if row.model_id in rows:
                rows[row.model_id].loaded |= row.loaded
                rows[row.model_id].loaded_in += row.loaded_in
    answer.detail = _lost(others)
    return answer


def one_sum(own: Answer, others: Mapping[int, Answer | LipwireError]) -> Answer:
    """Return one answer of all processes of a server to GetModelStats: ``own`` of this process plus
    ``others``, the answers or errors by process number. Errors count for nothing and are named in
    ``detail``.

    There is one row for each model (on each device). Numbers are added up; ``idle_s`` is the least.
    """
    answer = _copy(own)
    rows = {_key(row): row for row in answer.models}
    for said in _good(others):
        for name in _SUMS:
            if name in answer.DESCRIPTOR.fields_by_name:
                setattr(answer, name, getattr(answer, name) + getattr(said, name))
        for name in _NETWORK_SUMS:
            if name in answer.DESCRIPTOR.fields_by_name and said.HasField(name):
                setattr(answer, name, getattr(answer, name) + getattr(said, name))
        for row in said.models:
            there = rows.get(_key(row))
            if there is None:
                there = rows[_key(row)] = answer.models.add()
                there.CopyFrom(row)
                continue
            _add_row(there, row)
    answer.detail = _lost(others)
    return answer


def one_health(index: int, own: Answer, others: Mapping[int, Answer | LipwireError]) -> Answer:
    """Return one answer of all processes of a server to Health, healthy where each process that
    answered is healthy; errors count for nothing, and are named in ``detail``. ``own`` is the
    answer of this process, of number ``index``, and ``others`` are the answers or errors of the
    others by their numbers, from 0.

    The GPUs are those of all processes, each once.
    """
    answer = _copy(own)
    gpus = {(_server(gpu), gpu.index): gpu for gpu in answer.gpus}
    for said in _good(others):
        answer.healthy &= said.healthy
        if hasattr(answer, "inference_server_healthy"):
            answer.inference_server_healthy &= said.inference_server_healthy
        for name in ("loaded_models", "max_models", "workers", "live_sessions", "live_capacity"):
            setattr(answer, name, getattr(answer, name) + getattr(said, name))
        for gpu in said.gpus:
            there = gpus.get((_server(gpu), gpu.index))
            if there is None:
                gpus[_server(gpu), gpu.index] = answer.gpus.add()
                gpus[_server(gpu), gpu.index].CopyFrom(gpu)
                continue
            there.loaded_models += gpu.loaded_models
            there.used_bytes = max(there.used_bytes, gpu.used_bytes)
            there.utilisation = max(there.utilisation, gpu.utilisation)
            # One process's CUDA may be broken beyond repair where another's works.
            there.lost = there.lost if gpu.lost else ""
    if gpus and hasattr(answer, "gpu_count"):
        answer.gpu_count = sum(not gpu.lost for gpu in gpus.values())
    details = {index: own.detail}
    for number, said in others.items():
        if not isinstance(said, LipwireError):
            details[number] = said.detail
    answer.detail = "; ".join([*_told(details), *filter(None, [_lost(others)])])
    return answer


def _copy(own: Answer) -> Answer:
    answer = type(own)()
    answer.CopyFrom(own)
    return answer


def _error_of(said: Answer | LipwireError) -> LipwireError | None:
    if isinstance(said, LipwireError):
        return said
    if getattr(said, "success", True):
        return None
    return error_of_answer(said.error_code, said.error)


def _there(others: Mapping[int, Answer | LipwireError]) -> dict[int, Answer | LipwireError]:
    return {number: said for number, said in others.items() if not isinstance(said, Unavailable)}


def _good(others: Mapping[int, Answer | LipwireError]) -> list[Answer]:
    return [said for said in others.values() if not isinstance(said, LipwireError)]


def _not_there(others: Mapping[int, Answer | LipwireError]) -> str:
    gone = (number for number, said in others.items() if isinstance(said, Unavailable))
    return "; ".join(f"worker {number} is not there" for number in gone)


def _lost(others: Mapping[int, Answer | LipwireError]) -> str:
    """Who is not in the answer, and why."""
    failed = (
        f"worker {number}: {public_message(said)}"
        for number, said in _there(others).items()
        if isinstance(said, LipwireError)
    )
    return "; ".join([*filter(None, [_not_there(others)]), *failed])


def _one_error(errors: Mapping[int, LipwireError], asked: int) -> LipwireError:
    """The first of ``errors``, worded for the server as a whole where that makes a difference."""
    number, first = next(iter(errors.items()))
    if len(errors) == asked and len({str(error) for error in errors.values()}) == 1:
        return first
    done = asked - len(errors)
    text = f"worker {number}: {first}; it is done in {done} of {asked} processes"
    if isinstance(first, Overloaded):
        return type(first)(text, retry_after_s=first.retry_after_s)
    return type(first)(text)


def _told(details: Mapping[int, str]) -> Iterable[str]:
    """What processes say of themselves; once where they all say the same."""
    said = {detail for detail in details.values() if detail}
    if len(said) == 1 and all(details.values()):
        return said
    return [f"worker {number}: {detail}" for number, detail in details.items() if detail]


def _add_row(there: Answer, row: Answer) -> None:
    for name in _ROW_SUMS:
        setattr(there, name, getattr(there, name) + getattr(row, name))
    there.idle_s = min(there.idle_s, row.idle_s)
    if there.revision != row.revision:  # a new file that not every process has loaded yet
        there.revision = ""


def _key(row: Answer) -> tuple[str, int]:
    return row.model_id, row.gpu_id


def _server(gpu: Answer) -> str:
    return getattr(gpu, "server", "")
