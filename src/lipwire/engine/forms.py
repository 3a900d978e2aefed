"""Names and shapes of the inputs and the output of a compiled network, in both of its forms.

In the form *pixels* an avatar's crops go in and mouths come out, uint8 both; in the form *floats*
inputs and output are the network's own.
"""

from typing import Final

from lipwire.domain import MOUTH_PX, Form

FORMS: Final[tuple[Form, ...]] = ("pixels", "floats")

PIXELS_SHAPE: Final = (MOUTH_PX, MOUTH_PX, 3)
"""Shape of a crop and of a mouth as pixels."""
VISUAL_SHAPE: Final = (6, MOUTH_PX, MOUTH_PX)
"""Shape of the crop, and of the crop with the mask black, as floats."""
OUTPUT_SHAPE: Final = (3, MOUTH_PX, MOUTH_PX)
"""Shape of a mouth as floats."""

FACE: Final = "face"
"""Input of both forms: crops (N, 320, 320, 3) uint8, or the guide's (N, 6, 320, 320) float32."""
SPEECH: Final = "speech"
"""Input of both forms: (N, 32, 16, 16) float32."""
MOUTH: Final = "mouth"
"""Output of both forms: (N, 320, 320, 3) uint8, or the guide's (N, 3, 320, 320) float32."""

BATCH: Final = "N"
"""The open dimension of both inputs and the output, where the batch is not fixed."""
MAX_FIXED_BATCH: Final = 256
"""Frames that a network may take at once whose batch is fixed."""
