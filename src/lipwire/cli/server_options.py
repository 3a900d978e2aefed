"""Options that the commands of the servers have in common."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="YAML file (default: config.yaml here, where there is one).",
        show_default=False,
    ),
]
ModelsRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder of avatar packages, served by their names (in place of models_root).",
        show_default=False,
    ),
]
Host = Annotated[
    str | None,
    typer.Option(help="Address to listen on (in place of server.host).", show_default=False),
]
Port = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Port to listen on, 0 for any (in place of server.port).",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that share the port (in place of server.workers).",
        show_default=False,
    ),
]
JsonLogs = Annotated[
    bool, typer.Option("--json-logs", help="Log JSON, one object a line, and no banner.")
]
ReadyFd = Annotated[int | None, typer.Option(hidden=True)]
"""How a parent process is told the port; its end of stdin asks for the end."""
Worker = Annotated[Path | None, typer.Option(hidden=True)]
"""Socket of this process among those that share a port; its name is the process's number."""
