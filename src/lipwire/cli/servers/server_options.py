"""Options that the commands of the servers have in common."""

from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

_option: Final = partial(typer.Option, show_default=False)

Config = Annotated[
    Path | None,
    _option("--config", "-c", help="YAML file (default: config.yaml here, where there is one)."),
]
ModelsRoot = Annotated[
    str | None,
    _option(
        metavar="PATH|URL",
        help="Folder of avatar packages, served by their names, or a store as s3://BUCKET/FOLDER"
        " (in place of models_root).",
    ),
]
Host = Annotated[str | None, _option(help="Address to listen on (in place of server.host).")]
Port = Annotated[
    int | None,
    _option(min=0, max=65535, help="Port to listen on, 0 for any (in place of server.port)."),
]
Workers = Annotated[
    int | None, _option(min=1, help="Processes that share the port (in place of server.workers).")
]
JsonLogs = Annotated[
    bool, typer.Option("--json-logs", help="Log JSON, one object a line, and no banner.")
]
ReadyFd = Annotated[int | None, typer.Option(hidden=True)]
"""How a parent process is told the port; its end of stdin asks for the end."""
Worker = Annotated[Path | None, typer.Option(hidden=True)]
"""Socket of this process among those that share a port; its name is the process's number."""
