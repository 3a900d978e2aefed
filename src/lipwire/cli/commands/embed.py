"""`lipwire embed`: an avatar in a page of your own, which has a ticket and no key."""

import json
import re
from typing import Annotated

import typer

TICKET_URL = "/lipwire-ticket"
_PATH_OF_A_SITE = r"/(?!/)[A-Za-z0-9._~/-]*"
"""Nothing that has a meaning in HTML, JavaScript, Python or a URL; two slashes at its beginning
would name another site."""

_PAGE = """\
<!-- {avatar_text} of {server_text}: a session begins with the first text. The page has no
     key: it gets a ticket from {ticket_text}, a part of this site's own server. -->
<figure class="lipwire">
  <video muted autoplay playsinline></video>
  <figcaption>Synthetic person</figcaption>
  <form>
    <input name="text" aria-label="What to say" placeholder="What to say" required>
    <button>Say it</button>
  </form>
  <output></output>
</figure>

<script type="module">
  import {{ LipwireSession }} from {module};

  const figure = document.querySelector(".lipwire");
  const video = figure.querySelector("video");
  const form = figure.querySelector("form");
  const output = figure.querySelector("output");
  /** @type {{Promise<LipwireSession> | null}} */
  let begun = null;

  async function ticket() {{
    const answer = await fetch({ticket_url}, {{ method: "POST" }});
    if (!answer.ok) throw new Error(`there is no ticket now (${{answer.status}})`);
    return (await answer.json()).ticket;
  }}

  function begin() {{
    const session = new LipwireSession();
    session.attach(video);
    session.addEventListener("caption", ({{ detail }}) => (output.textContent = detail.text));
    for (const name of ["ended", "failed"]) {{
      session.addEventListener(name, () => {{
        begun = null;
        output.textContent = "The session has ended. Say something to begin another.";
      }});
    }}
    return session.connect({{ server: {server}, avatar: {avatar}, ticket }});
  }}

  form.addEventListener("submit", async (event) => {{
    event.preventDefault();
    video.muted = false; // after a click, browsers allow sound
    const text = String(new FormData(form).get("text"));
    try {{
      begun ??= begin();
      const session = await begun.catch((error) => {{
        begun = null;
        throw error;
      }});
      form.reset();
      await session.speak(text);
    }} catch (error) {{
      output.textContent = error.message;
    }}
  }});
</script>
"""

_BACKEND = '''\
"""Gives visitors of this site tickets for an avatar: put ``application`` (WSGI, PEP 3333) where
your site answers {ticket_text}. The key is in the environment variable LIPWIRE_TOKEN, and goes to
no page.

Who gets a ticket is for you to say: ask for your own login, or count by visitor, before one is
given.
"""

import json
import os
import urllib.error
import urllib.request

PATH = {ticket_url}
SERVER = {server}
WANTED = {{"avatar": {avatar}, "origin": {origin}, "minutes": {minutes:g}}}


def application(environ, start_response):
    """Answer POST to PATH with a new ticket."""
    if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) != ("POST", PATH):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"POST " + PATH.encode()]
    request = urllib.request.Request(
        SERVER + "v1/tickets",
        json.dumps(WANTED).encode(),
        {{
            "Authorization": "Bearer " + os.environ["LIPWIRE_TOKEN"],
            "Content-Type": "application/json",
        }},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            told = answer.read()
    except OSError as error:  # refused, or not there: the reason is for this site's log
        print("no ticket:", error, file=environ["wsgi.errors"])
        start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"no ticket now"]
    start_response("200 OK", [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [told]


if __name__ == "__main__":
    from wsgiref.simple_server import make_server

    make_server("127.0.0.1", 8000, application).serve_forever()
'''


def command(
    avatar: Annotated[str, typer.Argument(help="Name of the avatar.", show_default=False)],
    server: Annotated[
        str,
        typer.Option(
            help="The Lipwire server's page, as https://avatars.example.org.", show_default=False
        ),
    ],
    ticket_url: Annotated[
        str, typer.Option(help="Where your own site gives tickets: a path of it.")
    ] = TICKET_URL,
    backend: Annotated[
        bool, typer.Option("--backend", help="Print your site's part, which gives the tickets.")
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option(
            help="With --backend: your site's origin, as https://www.example.org.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="With --backend: how long a session may last.")
    ] = 15,
) -> None:
    """Print what puts an avatar into a page of your own: HTML, with a module that needs no key.

    The server has to list your site in web.allowed_origins. What gives tickets to the page is a
    part of your own site, which --backend prints, in Python.

    lipwire embed demo --server https://avatars.example.org > avatar.html
    """
    from lipwire.config.values import web_origin
    from lipwire.domain import InvalidInput
    from lipwire.domain.names import checked_name
    from lipwire.security.tickets import MOST_MINUTES

    address = _address(server)
    name = checked_name(avatar)
    if not re.fullmatch(_PATH_OF_A_SITE, ticket_url):
        raise InvalidInput(
            f"--ticket-url is {ticket_url[:60]!r}; allowed is a path of your site, as {TICKET_URL}"
        )
    if not backend:
        if origin is not None:
            raise InvalidInput("--origin is for --backend, which is not given")
        typer.echo(
            _PAGE.format(
                avatar_text=_shown(name),
                server_text=_shown(address),
                ticket_text=ticket_url,
                module=_script(f"{address}lipwire.js"),
                server=_script(address),
                avatar=_script(name),
                ticket_url=_script(ticket_url),
            ),
            nl=False,
        )
        return
    try:
        found = web_origin(origin or "")
        if found == "*":
            raise ValueError(found)
    except ValueError:
        raise InvalidInput(
            f"--origin is {origin or 'not given'}; allowed is your site's, as"
            " https://www.example.org"
        ) from None
    if not 1 <= minutes <= MOST_MINUTES:
        raise InvalidInput(f"--minutes is {minutes:g}; allowed are 1 to {MOST_MINUTES}")
    typer.echo(
        _BACKEND.format(
            ticket_text=ticket_url,
            ticket_url=json.dumps(ticket_url),
            server=json.dumps(address),
            avatar=json.dumps(name),
            origin=json.dumps(found),
            minutes=minutes,
        ),
        nl=False,
    )


def _address(server: str) -> str:
    """With a slash at its end. Raises InvalidInput where it is no address that a page may use."""
    from urllib.parse import urlsplit

    from lipwire.config.values import is_loopback, web_origin
    from lipwire.domain import InvalidInput

    try:
        parts = urlsplit(server)
        whole = f"{web_origin(f'{parts.scheme}://{parts.netloc}')}{parts.path.rstrip('/')}/"
        if parts.query or parts.fragment or not whole.isprintable():
            raise ValueError(server)
    except ValueError:
        raise InvalidInput(
            f"--server is {server[:60]}; allowed is an address as https://avatars.example.org"
        ) from None
    if parts.scheme.lower() != "https" and not is_loopback(parts.hostname or ""):
        raise InvalidInput(
            f"--server is {server[:60]}; allowed is https, as your key would be sent without"
            " encryption"
        )
    return whole


def _script(text: str) -> str:
    """As a string of JavaScript within HTML."""
    return json.dumps(text).replace("<", "\\u003c").replace(">", "\\u003e")


def _shown(text: str) -> str:
    """In a comment of HTML."""
    return text.replace("<", "").replace(">", "").replace("--", "-")
