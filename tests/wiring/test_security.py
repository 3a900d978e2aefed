"""Who may ask, as a configuration says."""

import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from lipwire.config import load_compositing_config
from lipwire.domain import EVERYTHING, Access, LipwireError, Unauthenticated
from lipwire.security import AccessControl, Credentials
from lipwire.wiring.security import open_access_control

SECRET = "a secret of thirty-two characters"


def control_of(folder: Path, security: str) -> AccessControl:
    """What the section ``security`` of a file means."""
    (folder / "secret").write_text(SECRET)
    file = folder / "compositing.yaml"
    file.write_text(f"security: {security}\n")
    config = load_compositing_config(file, {})
    return open_access_control(config.security, config.server)


def access_by_token(control: AccessControl, **claims: Any) -> Access:
    told = {"iss": "us", "aud": "lipwire", "exp": time.time() + 60, "scope": "live", **claims}
    return control.access(Credentials(token=jwt.encode(told, SECRET, algorithm="HS256")))


def jwt_section(more: str) -> str:
    needed = "issuer: us, audience: lipwire, algorithms: [HS256], key_file: secret"
    return f"{{jwt: {{{needed}, {more}}}}}"


def test_clocks_may_differ_by_leeway_seconds(tmp_path: Path) -> None:
    past = time.time() - 40
    with control_of(tmp_path, jwt_section("leeway_seconds: 600")) as control:
        assert access_by_token(control, exp=past).operations == {"live"}
    strict = jwt_section("leeway_seconds: 0")
    with control_of(tmp_path, strict) as control, pytest.raises(Unauthenticated, match="expired"):
        access_by_token(control, exp=past)


def test_tenant_claim_names_the_tenant(tmp_path: Path) -> None:
    claims = {"tenant": "acme", "org": "other"}
    for more, tenant in (("leeway_seconds: 30", "acme"), ("tenant_claim: org", "other")):
        with control_of(tmp_path, jwt_section(more)) as control:
            assert access_by_token(control, **claims).tenant == tenant


def test_where_a_tenant_claim_is_set_each_token_has_to_have_it(tmp_path: Path) -> None:
    with control_of(tmp_path, jwt_section("leeway_seconds: 30")) as control:
        assert access_by_token(control).tenant == ""
    with control_of(tmp_path, jwt_section("tenant_claim: org")) as control:
        for claims in ({}, {"tenant": "acme"}, {"org": ""}, {"org": None}):
            with pytest.raises(Unauthenticated, match="the token has no org, which has to name"):
                access_by_token(control, **claims)


@pytest.mark.parametrize("required", [True, False])
def test_calls_that_cannot_be_recorded_are_refused_where_audit_required_says_so(
    tmp_path: Path, required: bool
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    security = f"{{audit_file: {full}, audit_required: {str(required).lower()}}}"
    with control_of(tmp_path, security) as control:
        assert control.audit is not None
        control.audit.write({"number": 1})
        if not required:
            control.enter(EVERYTHING, "live")
            return
        with pytest.raises(LipwireError, match="cannot be recorded"):
            control.enter(EVERYTHING, "live")
