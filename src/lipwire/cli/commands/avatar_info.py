"""``lipwire avatar info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lipwire.avatars import AvatarPackage


def command(
    avatar: Annotated[str, typer.Argument(help="An avatar's name or folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show what an avatar consists of and what of it is compiled."""
    from lipwire.avatars import find_avatar, read_package

    facts = _facts(read_package(find_avatar(avatar)))
    if as_json:
        import json

        typer.echo(json.dumps(facts, indent=2))
    else:
        _print_table(facts)


def _facts(package: AvatarPackage) -> dict[str, Any]:
    from contextlib import closing

    from lipwire.avatars.frames.frameloading import frame_counts, frame_tasks
    from lipwire.engine import inspect_model

    with closing(frame_tasks(package.pictures)) as frames:
        height, width = next(frames)().shape[:2]
    model = inspect_model(package.model_path)
    settings = package.settings
    frame_count, source_count = frame_counts(package.pictures)
    return {
        "name": package.name,
        "path": str(package.path),
        "description": settings.description,
        "licence": settings.licence,
        "consent": settings.consent,
        "width": width,
        "height": height,
        "fps": settings.fps,
        "frames": frame_count,
        "source_frames": source_count,
        "seconds": frame_count / settings.fps,
        "source": "video" if package.pictures.video_path else "images",
        "rects": {
            "count": len(package.rects),
            "widths": [min(r.width for r in package.rects), max(r.width for r in package.rects)],
            "heights": [min(r.height for r in package.rects), max(r.height for r in package.rects)],
            "area": [
                min(r.x1 for r in package.rects),
                min(r.y1 for r in package.rects),
                max(r.x2 for r in package.rects),
                max(r.y2 for r in package.rects),
            ],
        },
        "crop_border": settings.crop_border,
        "colour_order": settings.colour_order,
        "model": {
            "file": package.label(package.model_path),
            "size_bytes": package.model_path.stat().st_size,
            "parameters": model.parameters,
            "inputs": [model.input_name, model.audio_name],
            "output": model.output_name,
            "element_types": list(model.element_types),
            "batch": model.fixed_batch,
            "opset": model.opset,
        },
        "audio_encoder": package.label(package.encoder_path) if package.encoder_path else None,
        "compiled": _compiled(package.path),
    }


def _compiled(package: Path) -> list[dict[str, Any]]:
    """The compiled parts that lie beside the package and in the user's cache, fresh or stale."""
    from lipwire.avatars.compiled.parts import FRAME_PARTS, NETWORK_PARTS, REST_PART
    from lipwire.avatars.compiled.storage import homes

    return [
        {
            "part": part,
            "variant": path.name.split("-")[2],  # PART-CONTENT-VARIANT
            "file": str(path),
            "size_bytes": _size(path),
        }
        for home in homes(package)
        for part in sorted({*NETWORK_PARTS, *FRAME_PARTS, REST_PART})
        for path in sorted(home.glob(f"{part}-*-*"))
    ]


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _print_table(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lipwire.cli.terminal import duration, file_size
    from lipwire.domain.wording import one_line

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def row(label: str, value: object) -> None:
        # As Text: what a package says must not be taken for markup.
        table.add_row(label, Text(one_line(str(value))))

    rects, model = facts["rects"], facts["model"]
    row("name", facts["name"])
    row("folder", facts["path"])
    for key in ("description", "licence", "consent"):
        row(key, facts[key] or "not stated")
    same = facts["frames"] == facts["source_frames"]
    resampled = "" if same else f", resampled from {facts['source_frames']}"
    row(
        "frames",
        f"{facts['frames']} {facts['source']}{resampled}, {facts['width']}x{facts['height']},"
        f" {facts['fps']} fps, {duration(facts['seconds'])}",
    )
    row(
        "crop rectangles",
        f"{_range(rects['widths'])} wide, {_range(rects['heights'])} high, border"
        f" {facts['crop_border']} px, within {rects['area']}",
    )
    row(
        "network",
        f"{model['parameters'] / 1e6:.2f} M parameters, {file_size(model['size_bytes'])}, batch"
        f" {model['batch'] or 'any'}, opset {model['opset']}, {facts['colour_order']}",
    )
    first, second, output = model["inputs"][0], model["inputs"][1], model["output"]
    row("", f"{first} (N,6,320,320), {second} (N,32,16,16) -> {output} (N,3,320,320)")
    row("audio encoder", facts["audio_encoder"] or "none of its own")
    compiled = facts["compiled"]
    row("compiled", "nothing yet" if not compiled else _total(compiled))
    for part in compiled:
        quality = part["variant"] if part["part"] == "jpeg" else ""
        row("", f"{part['part']:<8} {file_size(part['size_bytes']):>9}  {quality}")
    Console().print(table)


def _range(bounds: list[int]) -> str:
    low, high = bounds
    return str(low) if low == high else f"{low}-{high}"


def _total(compiled: list[dict[str, Any]]) -> str:
    from lipwire.cli.terminal import file_size

    folders = sorted({str(Path(part["file"]).parent) for part in compiled})
    return f"{file_size(sum(part['size_bytes'] for part in compiled))} in {', '.join(folders)}"
