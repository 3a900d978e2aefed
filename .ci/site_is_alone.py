"""Make sure that a built site loads nothing from elsewhere: no script, style, font or picture.

    python .ci/site_is_alone.py out/site

Links that a person may follow are fine. Exits with 1 and a line for each place otherwise.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_ELSEWHERE = re.compile(r"^(?:https?:)?//", re.IGNORECASE)
_IN_STYLES = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)
_LINKS = frozenset({"canonical", "next", "prev", "author", "license"})
"""Kinds of <link> that browsers do not load."""


class _Loads(HTMLParser):
    """Collects what a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a" or (tag == "link" and values.get("rel") in _LINKS):
            return
        for name in ("src", "href", "srcset", "poster", "data"):
            value = values.get(name) or ""
            if _ELSEWHERE.match(value):
                self.found.append(value)
        self.found += _IN_STYLES.findall(values.get("style") or "")


def main(site: Path) -> int:
    """1 where something is loaded from elsewhere, 0 otherwise."""
    wrong = []
    for page in sorted(site.rglob("*.html")):
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        wrong += [f"{page}: {address}" for address in loads.found]
    for style in sorted(site.rglob("*.css")):
        found = _IN_STYLES.findall(style.read_text(encoding="utf-8"))
        wrong += [f"{style}: {address}" for address in found]
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
