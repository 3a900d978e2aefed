"""The compositing server's configuration: the guide's file, and what Lipwire adds to it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from lipwire.config.addresses import split_targets
from lipwire.config.settings import (
    CapacitySettings,
    ModelCount,
    Port,
    Section,
    ServerConfig,
    ServerSettings,
)

OutputFormat = Literal["jpeg", "raw"]

Targets = Annotated[
    tuple[str, ...],
    BeforeValidator(split_targets),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ],
            "allowed": "host:port, several with commas between them, or a list of them",
        }
    ),
]


class CompositingServerSettings(ServerSettings):
    """Where the compositing server listens."""

    port: Port = 50052
    """The port to listen on; 0 is any free one. A host before the colon sets `host`."""


class InferenceAddressSettings(Section):
    """The inference servers that are asked."""

    url: Targets = ("localhost:50051",)
    """One inference server, several, or a load balancer. Of several, each avatar has one that is
    asked first, so that it is not loaded everywhere; the others take over when that one is away."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 10
    """The longest that a request to an inference server may take, all tries together; a shorter
    deadline of the client goes first."""
    max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    """Tries after the first one, with growing pauses, of what is safe to try again."""


class CompositingCapacitySettings(CapacitySettings):
    """How many avatars are kept open."""

    max_models: ModelCount = 11_000
    """Avatars open at a time; how many are known is not limited."""
    background_cache_frames: Annotated[int, Field(ge=0, le=1_000_000)] = 600
    """Frames of each avatar that `preload_backgrounds` reads into memory; the others are read from
    disk when they are first shown, and stay as long as the system has room."""


class OutputSettings(Section):
    """The frames that clients get."""

    format: OutputFormat = "jpeg"
    """JPEG files, or raw pixels: height x width x 3 bytes in the order blue, green, red."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 75
    """75 is a good balance, 85 high quality. Avatars are prepared for one quality, so the first
    start after a change takes longer."""


class CompositingConfig(ServerConfig):
    """The file of the compositing server."""

    server: CompositingServerSettings = CompositingServerSettings()
    """Where the server listens."""
    inference_server: InferenceAddressSettings = InferenceAddressSettings()
    """The inference servers that are asked."""
    capacity: CompositingCapacitySettings = CompositingCapacitySettings()
    """How many avatars are kept open."""
    output: OutputSettings = OutputSettings()
    """The frames that clients get."""

    def notes(self) -> list[str]:
        """What is accepted and does not do what one could expect, one line each."""
        notes = super().notes()
        cached = self.capacity.background_cache_frames
        for name, entry in self.models.items():
            if entry.preload_backgrounds and (entry.num_frames or 0) > cached:
                notes.append(
                    f"models.{name}: {cached} of its {entry.num_frames} frames are preloaded;"
                    " capacity.background_cache_frames is the limit"
                )
                break
        return notes
