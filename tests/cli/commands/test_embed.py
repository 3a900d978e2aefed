"""`lipwire embed`, as whoever types it sees it. That what it prints works is tried in a browser:
``tests/web/page/test_embed.py``."""

import re

import pytest

from lipwire.cli.app import app
from lipwire.domain import InvalidInput

SERVER = ["--server", "https://avatars.example.org"]
SITE = ["--backend", "--origin", "https://www.example.org"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    app(["embed", *arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_the_page_names_the_server_the_avatar_and_where_tickets_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = printed(capsys, "anna", *SERVER, "--ticket-url", "/api/ticket")
    assert 'import { LipwireSession } from "https://avatars.example.org/lipwire.js";' in page
    assert 'connect({ server: "https://avatars.example.org/", avatar: "anna", ticket })' in page
    assert 'fetch("/api/ticket", { method: "POST" })' in page
    assert "Synthetic person" in page
    assert "lipwire_" not in page


def test_nothing_that_is_given_ends_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(capsys, 'a<script>"$&', *SERVER)
    assert re.findall(r"</?script[^>]*>", page) == ['<script type="module">', "</script>"]
    assert page.count("-->") == 1
    assert r'avatar: "a\u003cscript\u003e\"$&"' in page


def test_a_part_of_the_servers_path_stays(capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(capsys, "anna", "--server", "HTTPS://A.example:443/lips/")
    assert '"https://a.example/lips/lipwire.js"' in page


def test_the_backend_is_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    program = printed(
        capsys, "anna \"'", *SERVER, *SITE, "--minutes", "5", "--ticket-url", "/a-b/~c_9.x"
    )
    made: dict[str, object] = {"__name__": "site"}
    exec(compile(program, "backend.py", "exec"), made)
    assert made["SERVER"] == "https://avatars.example.org/"
    assert made["PATH"] == "/a-b/~c_9.x"
    wanted = {"avatar": "anna \"'", "origin": "https://www.example.org", "minutes": 5}
    assert made["WANTED"] == wanted


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["anna", "--server", "avatars.example.org"], "allowed is an address as https"),
        (["anna", "--server", "https://a.example/?x=1"], "allowed is an address as https"),
        (["anna", "--server", "http://a.example"], "allowed is https, as your key would be sent"),
        ([".anna", *SERVER], "avatar name is '.anna'"),
        (["anna", *SERVER, "--ticket-url", "//evil.example/x"], "allowed is a path of your site"),
        (["anna", *SERVER, "--ticket-url", "ticket"], "allowed is a path of your site"),
        *(
            (
                ["anna", *SERVER, *more, "--ticket-url", f"/{wrong}"],
                "allowed is a path of your site",
            )
            for more in ([], SITE)
            for wrong in (
                "a b",
                "?a",
                "#a",
                "<",
                '"',
                "'",
                "\\",
                "\\x.example",
                "a\n",
                "\u00e4",
                "%2f",
            )
        ),
        (["anna", *SERVER, "--origin", "https://www.example.org"], "--origin is for --backend"),
        (["anna", *SERVER, "--backend"], "--origin is not given"),
        (["anna", *SERVER, "--backend", "--origin", "*"], r"--origin is \*; allowed is"),
        (["anna", *SERVER, *SITE, "--minutes", "500"], "--minutes is 500; allowed are 1 to 240"),
    ],
)
def test_wrong_use_is_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        printed(capsys, *arguments)
