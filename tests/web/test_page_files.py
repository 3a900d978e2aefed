"""The page's files: what they are made of, and where they come from."""

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest

PAGE: Final = Path(str(files("lipwire") / "web" / "page"))
NAMES: Final = sorted(path.name for path in PAGE.iterdir())
NAMESPACE: Final = "http://www.w3.org/2000/svg"
NAMED_BY: Final = {"button": ("aria-label",), "video": ("aria-label",), "section": ("aria-label",)}


class Elements(HTMLParser):
    """The elements of a document: tag, attributes, and the text inside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        inside: list[str] = []
        self.found.append((tag, dict(attrs), inside))
        self._open.append((tag, inside))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for _, inside in self._open:
            inside.append(data)


ELEMENTS: Final = Elements((PAGE / "index.html").read_text(encoding="utf-8")).found


def test_there_is_a_page_its_style_its_program_and_the_module() -> None:
    assert {"index.html", "page.css", "page.js", "lipwire.js", "microphone.js"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_one_from_elsewhere(name: str) -> None:
    text = (PAGE / name).read_text(encoding="utf-8").replace(NAMESPACE, "")
    assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text, re.IGNORECASE)


def test_every_file_that_is_named_is_there() -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        for named in re.findall(
            r"""(?:\s(?:src|href)=|from |import\(|URL\((?="\./))"([\w./-]+)\"""", text
        ):
            if not named.endswith("/"):
                assert (PAGE / named.removeprefix(".").removeprefix("/")).is_file(), (
                    path.name,
                    named,
                )


def test_the_document_has_a_language_and_a_title() -> None:
    found = {tag: (attributes, "".join(inside)) for tag, attributes, inside in ELEMENTS}
    assert found["html"][0]["lang"] == "en"
    assert found["title"][1]


def test_what_can_be_used_has_a_name() -> None:
    labels = {attributes.get("for") for tag, attributes, _ in ELEMENTS if tag == "label"}
    for tag, attributes, inside in ELEMENTS:
        if tag in ("select", "textarea"):
            assert attributes["id"] in labels
        elif tag == "input":
            assert attributes.get("aria-hidden") == "true" or attributes["id"] in labels
        elif tag in NAMED_BY and attributes.get("id") != "failure-action":  # the program names it
            assert attributes.get("aria-label") or "".join(inside).strip(), attributes


def test_icons_are_hidden_from_who_cannot_see_them() -> None:
    for tag, attributes, _ in ELEMENTS:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true"


def test_the_document_allows_nothing_from_elsewhere() -> None:
    policies = [
        str(attributes["content"])
        for tag, attributes, _ in ELEMENTS
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert "default-src 'self'" in policies[0]
    assert "unsafe" not in policies[0]


def test_every_id_is_given_once_and_those_the_program_uses_are_there() -> None:
    ids = [attributes["id"] for _, attributes, _ in ELEMENTS if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'\$\("([\w-]+)"\)', (PAGE / "page.js").read_text(encoding="utf-8"))
    assert used
    assert set(used) <= set(ids)


def test_the_style_sheet_heeds_dark_reduced_motion_and_focus() -> None:
    style = (PAGE / "page.css").read_text(encoding="utf-8")
    for wanted in ("prefers-color-scheme: dark", "prefers-reduced-motion", ":focus-visible"):
        assert wanted in style


def reasons() -> Iterator[str]:
    """Those that sessions end for, as the program has them."""
    live = Path(str(files("lipwire") / "session" / "live"))
    for module in ("sessions.py", "livesession.py"):
        for node in ast.walk(ast.parse((live / module).read_text(encoding="utf-8"))):
            told: list[ast.expr] = []
            match node:
                case ast.Call(func=ast.Attribute(attr="_end"), args=[_, because, *_]):
                    told = [because]
                case ast.Call(func=ast.Attribute(attr="close"), args=[because, *_]):
                    told = [because]
                case ast.For(
                    target=ast.Tuple(elts=[ast.Name(id="reason"), *_]), iter=ast.Tuple(elts=rules)
                ):
                    told = [rule.elts[0] for rule in rules if isinstance(rule, ast.Tuple)]
            for each in told:
                if isinstance(each, ast.Constant):
                    yield str(each.value)


def test_the_page_has_words_for_every_reason_that_a_session_ends_for() -> None:
    found = set(reasons()) - {"refused"}  # nobody is told of a session that never was
    assert {"closed", "max_idle", "made_room", "avatar_removed", "ticket_over", "error"} <= found
    text = (PAGE / "failures.js").read_text(encoding="utf-8")
    words = text.partition("function explainEnd")[2].partition("});")[0]
    assert set(re.findall(r'^ +"?([^":\n]+)"?: "', words, re.MULTILINE)) == found
