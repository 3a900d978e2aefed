"""An avatar on the stage looks as it does when it is served."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lipwire.api import open_avatar
from lipwire.evaluation.stage import perform, set_stage
from lipwire.wiring import open_performer


@pytest.mark.slow
def test_what_is_in_front_of_the_mouth_stays(
    make_package: Callable[..., Path], tmp_path: Path
) -> None:
    package = make_package(tmp_path / "anna", frames=3)
    boxes = [[100, 60, 220, 180], [102, 61, 222, 181], [104, 62, 224, 182]]
    (package / "crop_rects.json").write_text(json.dumps(boxes))
    mask = np.full((240, 320), 255, np.uint8)
    cv2.circle(mask, (160, 130), 30, 0, -1)
    (package / "masks").mkdir()
    for number in (0, 2):
        assert cv2.imwrite(str(package / "masks" / f"{number:04d}.png"), mask)
    pcm = np.random.default_rng(0).normal(0, 0.1, 5 * 640).astype(np.float32)
    with open_performer(package, parts=frozenset()) as performer:
        pictures = perform(set_stage(package, performer), pcm, lambda: None).pictures
    with open_avatar(package, outputs=("bgr",)) as avatar:
        frames = [frame.bgr for frame in avatar.speak(pcm)]
    for index, number in enumerate((0, 1, 2, 1, 0)):
        x1, y1, x2, y2 = boxes[number]
        assert np.array_equal(pictures[index], frames[index][y1:y2, x1:x2])
