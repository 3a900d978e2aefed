"""The documentation's program for rectangles, run as it stands there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "avatars.md"


def test_rectangles_come_from_landmarks_as_the_page_says(tmp_path: Path) -> None:
    (program,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if ".lms" in block
    )
    random = np.random.default_rng(3)
    wanted = []
    for frame in range(12):
        points = random.uniform(100, 600, (110, 2))
        points[1, 0], points[31, 0] = 548.9 + frame, 728.2 + frame
        points[52, 1] = 299.7
        text = "\n".join(f"{x:.4f} {y:.4f}" for x, y in points)
        (tmp_path / f"{frame}.lms").write_text(text + "\n")
        wanted.append([548 + frame, 299, 728 + frame, 479])
    out = tmp_path / "crop_rects.json"
    subprocess.run([sys.executable, "-c", program, str(tmp_path), str(out)], check=True)
    assert json.loads(out.read_text()) == wanted
