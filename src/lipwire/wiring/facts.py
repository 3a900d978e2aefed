"""What servers tell people who start them of their parts, as names with values."""

from typing import Final

from lipwire.avatars.packages import Packages
from lipwire.config.compositing import OutputSettings
from lipwire.domain import Call
from lipwire.serving import Backend

HEALTH_TIMEOUT_S: Final = 1.0
"""How long inference servers have to say how they are."""


def registry_facts(catalog: Packages, loaded: int, most: int) -> dict[str, object]:
    """Return facts for people, value by name: how many avatars ``catalog`` knows, how many are
    loaded already (``loaded``), and how many may be loaded at a time (``most``)."""
    return {"Known avatars": len(catalog.names()), "Preloaded": loaded, "Most at a time": most}


def frames_fact(output: OutputSettings) -> str:
    """Return in words the form of frames that ``output`` asks for, such as "JPEG, quality 75"."""
    if output.format == "raw":
        return "raw"
    if output.format == "h264":
        return f"H.264, quality {output.h264_crf}"
    return f"JPEG, quality {output.jpeg_quality}"


def health_facts(backend: Backend) -> dict[str, object]:
    """Return facts for people, value by name: the state of the inference servers of ``backend``, or
    why no mouths can be made. Asks them, and waits a second at most."""
    health = backend.health(call=Call(HEALTH_TIMEOUT_S))
    if not health.healthy:
        return {"Not there yet": health.detail or "no answer"}
    return {
        "Connected": "yes",
        "GPUs": health.gpu_count,
        "Loaded models": f"{health.loaded_models}/{health.max_models}",
        "Version": health.version,
    }
