"""The calls about models that both services answer alike: lists, loading and unloading, GPUs."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

from lipwire.domain import Access, InvalidInput, LipwireError
from lipwire.rpc.errors import refusal
from lipwire.rpc.generated import compositing_pb2, inference_pb2
from lipwire.rpc.generated import management_pb2 as pb
from lipwire.rpc.services.messages import model_id_of
from lipwire.serving import GpuStatus

HEALTH_TIMEOUT_S: Final = 2.0
"""How long a backend has to say how it is, or what it holds, beside a call about other things."""

_PAGE: Final = 1000
_LARGEST_PAGE: Final = 10_000

_GpuMessage = TypeVar("_GpuMessage", compositing_pb2.GpuStatus, inference_pb2.GpuStatus)


def list_models(
    request: pb.ListModelsRequest, names: Sequence[str], loaded: Collection[str], access: Access
) -> pb.ListModelsResponse:
    """Return the answer to ``request``, one of ListModels: one page of ``names``, which are sorted,
    without those that ``access`` does not allow the caller to see.

    ``loaded`` holds the names of the models in memory. A page has at most as many names as the
    request's page_size says, 1000 where that is 0. Raises InvalidInput for a page_size below 0 or
    above 10000.
    """
    if not access.sees_all:
        names = [name for name in names if access.sees(name)]
    page, token = page_of(names, request.page_size, request.page_token)
    return pb.ListModelsResponse(
        models=[
            pb.ModelInfo(model_id=name, loaded=name in loaded, loaded_in=int(name in loaded))
            for name in page
        ],
        next_page_token=token,
        total=len(names),
        workers=1,
    )


def page_of(names: Sequence[str], size: int, token: str) -> tuple[Sequence[str], str]:
    """Return (one page of ``names``, which are sorted; the token of the next page, empty on the
    last).

    ``token`` is that of the page wanted, empty for the first. It is the last name of the page
    before, so names that are added or removed between two requests move no others. ``size`` is how
    many names a page has at most; 0 stands for 1000. Raises InvalidInput for sizes below 0 or above
    10000.
    """
    if not 0 <= size <= _LARGEST_PAGE:
        raise InvalidInput(f"page_size is {size}; allowed are 1 to {_LARGEST_PAGE}, or 0 for 1000")
    start = bisect_right(names, token) if token else 0
    page = names[start : start + (size or _PAGE)]
    more = start + len(page) < len(names)
    return page, page[-1] if more else ""


def load_model(
    request: pb.LoadModelRequest,
    load: Callable[[str], pb.ModelStats | None],
    clock: Callable[[], float],
    access: Access,
    *,
    versions: bool = False,
) -> pb.LoadModelResponse:
    """Call ``load(model_id)`` with the canonical name (Unicode's NFC) of the model that ``request``
    names, wait for it, and return the answer to LoadModel, with how long that took in milliseconds;
    ``clock`` gives seconds.

    ``load`` returns the statistics that go into the answer, or None. ``access`` is what the caller
    may do; with ``versions`` the request may name a version of an avatar. Errors that say what is
    wrong with the request (InvalidInput, NotFound, AvatarInvalid) become ``success = false`` in the
    answer; others, such as Overloaded, are raised.
    """
    started_s = clock()
    try:
        model = load(model_id_of(request.model_id, access, versions=versions))
    except LipwireError as error:
        return refusal(pb.LoadModelResponse, error)
    return pb.LoadModelResponse(
        success=True, load_time_ms=(clock() - started_s) * 1000, model=model
    )


def unload_model(
    request: pb.UnloadModelRequest,
    unload: Callable[[str], bool],
    access: Access,
    *,
    versions: bool = False,
) -> pb.UnloadModelResponse:
    """Call ``unload(model_id)`` with the canonical name (Unicode's NFC) of the model that
    ``request`` names, and return the answer to UnloadModel.

    ``unload`` returns whether the model was loaded, which is ``unloaded`` of the answer;
    ``success`` is true either way. ``access`` is what the caller may do: a model that it does not
    allow is answered with NotFound. With ``versions`` the request may name one version of an
    avatar, NAME:VERSION, which ``unload`` is then given. Errors that say what is wrong with the
    request (InvalidInput, NotFound) become ``success = false`` with a text in the answer; others,
    such as Overloaded, are raised.
    """
    try:
        unloaded = unload(model_id_of(request.model_id, access, versions=versions))
    except LipwireError as error:
        return refusal(pb.UnloadModelResponse, error)
    return pb.UnloadModelResponse(success=True, unloaded=unloaded)


def gpu_message(kind: type[_GpuMessage], gpu: GpuStatus) -> _GpuMessage:
    """Return ``gpu`` as a protobuf message of the type ``kind``, which is the ``GpuStatus`` of one
    of the gRPC services; its fields have the same names."""
    return kind(**{name: getattr(gpu, name) for name in kind.DESCRIPTOR.fields_by_name})
