"""Property lists of launchd, as plistlib reads them."""

import plistlib
from pathlib import Path

from lipwire.cli.service.definition import ServiceDefinition
from lipwire.cli.service.launchd import plist_of, plist_path


def test_a_property_list_starts_the_server_and_again_where_it_fails() -> None:
    service = ServiceDefinition(
        "inference", Path("/opt/a & b/lipwire"), Path("/etc/lipwire/<i>.yaml"), "lipwire", 45.0
    )
    read = plistlib.loads(plist_of(service).encode())
    assert read["Label"] == "io.github.lipwire.inference-server"
    assert read["ProgramArguments"] == [
        *("/opt/a & b/lipwire", "inference-server", "--config", "/etc/lipwire/<i>.yaml")
    ]
    assert read["KeepAlive"] == {"SuccessfulExit": False}
    assert read["ExitTimeOut"] == 75
    assert read["UserName"] == "lipwire"
    assert plist_path(service).parent == Path("/Library/LaunchDaemons")


def test_a_users_agent_has_no_user_name() -> None:
    service = ServiceDefinition("serve", Path("/a/lipwire"), Path("/b.yaml"), None)
    assert "UserName" not in plistlib.loads(plist_of(service).encode())
    assert plist_path(service).parent == Path("~/Library/LaunchAgents").expanduser()
