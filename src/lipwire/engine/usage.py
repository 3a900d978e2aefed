"""Numbers about a GPU's memory: what it is used for, and how often weights and crops were brought
there and evicted."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuMemoryUse:
    """Bytes that this process has allocated on one device, and pinned of the host's memory for it.

    On the device: ``weights`` of networks; ``crops``, the pictures of avatars that networks are
    shown; ``slots``, buffers of the CUDA streams from which ONNX Runtime reads the weights of the
    network that it runs; and ``staging``, inputs, outputs and what Lipwire's own kernels keep in
    between. In the host: copies of weights (``pinned_weights``), and inputs and outputs
    (``pinned_staging``). What ONNX Runtime allocates for its sessions is not counted.
    """

    weights: int
    crops: int
    slots: int
    """Bytes of the streams' slots, one for each architecture in use, from which networks read their
    weights."""
    staging: int
    """Bytes of the streams' inputs and outputs, and of what kernels of our own keep in between."""
    pinned_weights: int
    pinned_staging: int

    @property
    def device(self) -> int:
        """Sum of all bytes on the device."""
        return self.weights + self.crops + self.slots + self.staging


@dataclass(frozen=True, slots=True)
class WeightsStats:
    """Numbers about networks' weights on a device: the bytes, and the number of networks (items),
    that are on the device now and in pinned host memory now, and counts since the start.

    ``hits`` are uses that found weights on the device; ``from_host`` and ``from_disk`` are copies
    to the device from pinned memory and from the disk; ``evictions`` are networks whose weights
    were evicted from the device; ``out_of_memory`` are allocations of device memory that failed at
    the first try.
    """

    device_bytes: int
    device_items: int
    host_bytes: int
    host_items: int
    hits: int
    """Uses that found the weights on the device."""
    from_host: int
    """Uploads from the pinned tier, and from the disk."""
    from_disk: int
    evictions: int
    """Networks whose weights were evicted from the device."""
    out_of_memory: int
    """Allocations that failed at first."""


@dataclass(frozen=True, slots=True)
class CropStats:
    """Numbers about crops on a device: the bytes, the ``blocks`` of 20 crops, and the ``avatars``
    with any crop that are there now, and counts since the start.

    ``hits`` are frames of requests whose crops were there, ``misses`` those whose crops were
    uploaded, ``evictions`` blocks that were evicted.
    """

    device_bytes: int
    blocks: int
    avatars: int
    """Avatars of which any crop is kept."""
    hits: int
    """Frames of requests that were on the device."""
    misses: int
    """Frames that were uploaded."""
    evictions: int
    """Blocks that were evicted."""
