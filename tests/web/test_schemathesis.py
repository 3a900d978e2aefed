"""Requests made from the OpenAPI document, right and wrong ones: each is answered as the document
says."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import CheckFunction
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tests.support.renderparts import Maker, opened_renders, order
from tests.support.webparts import TOKEN, WebHouse

from lipwire.renders import RenderRules
from lipwire.session.live import SessionRules
from lipwire.web.openapi import ROUTES, document

STREAMS: Final = ("/events", "/mjpeg", "/socket")
"""They last as long as their client."""
BYTES: Final = (
    "application/sdp",
    "application/trickle-ice-sdpfrag",
    "audio/pcm",
    "audio/l16",
    "application/octet-stream",
)
CASES: Final = 100


def as_bytes(context: Any, value: Any) -> bytes:
    """A body of no JSON; what is made up for it has any type."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebHouse]:
    schemathesis.serializer(*BYTES)(as_bytes)
    folder = tmp_path_factory.mktemp("renders")
    rules = RenderRules(max_queued=10_000)
    with (
        opened_renders(folder / "kept", Maker(folder), rules) as renders,
        WebHouse(
            SessionRules(max_sessions=1000), speak=lambda session, text: None, renders=renders
        ) as house,
    ):
        renders.submit(order(), None, 0)
        yield house


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path"),
    [(one.method, one.path) for one in ROUTES if not one.path.endswith(STREAMS)],
)
@pytest.mark.parametrize("exists", [False, True])
def test_requests_are_answered_as_the_document_says(
    house: WebHouse, method: str, path: str, exists: bool
) -> None:
    schema = schemathesis.openapi.from_dict(document())
    schema.config.base_url = f"http://127.0.0.1:{house.port}"
    operation = schema[path][method]
    # Offers that are answered, candidates, origins of pages, and which parameters belong together
    # are more than a schema says.
    special = path.startswith("/whep") or path.endswith(
        ("/speak", "/tickets", "/render", "/renders", ".mp4", ".m4s")
    )
    left_out: list[CheckFunction] = [positive_data_acceptance] if special else []
    statuses = set()

    @settings(
        max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(operation.as_strategy())
    def check(case: Any) -> None:
        if exists and "{session}" in path:
            case.path_parameters["session"] = session_of(house)
        if exists and "{render}" in path:
            case.path_parameters["render"] = render_of(house)
        if exists and "{avatar}" in path:
            case.path_parameters["avatar"] = "anna"
        answer = case.call(
            headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60, allow_redirects=False
        )
        case.validate_response(answer, excluded_checks=left_out)
        assert answer.status_code < 500
        statuses.add(answer.status_code)

    check()
    if exists and path.startswith("/v1/sessions/{"):
        assert min(statuses) < 300, "no request was about a session that runs"
    assert statuses


def render_of(house: WebHouse) -> str:
    """A render that there is: the newest one, or a new one."""
    there = house.ask("GET", "/v1/renders?most=1").json["renders"]
    if not there:
        there = [house.ask("POST", "/v1/render", {"avatar": "anna", "text": "Hello"}).json]
    return str(there[0]["id"])


def session_of(house: WebHouse) -> str:
    """The id of a session that runs."""
    found = house.sessions.every("")
    return found[0].id if found else house.open()
