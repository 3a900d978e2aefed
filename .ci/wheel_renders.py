"""Check a wheel, install it into an empty environment of the pinned versions, and render there.

    python .ci/wheel_renders.py dist/lipwire-0.1.0-py3-none-any.whl

Exits with 0 where a video of the bundled sentence comes out, as long as the sentence.
"""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

ROOT = Path(__file__).resolve().parents[1]
CHECK = """
import sys
import av
import lipwire
from lipwire.api import render
from importlib.resources import files

assert "site-packages" in lipwire.__file__, lipwire.__file__
sample = files("lipwire") / "assets" / "speech" / "sample.flac"
result = render("demo", str(sample), sys.argv[1])
with av.open(sys.argv[1]) as video:
    frames = sum(1 for _ in video.decode(video=0))
assert frames == result.frames > 25, (frames, result.frames)
print(f"{frames} frames, {result.fps:.0f} fps")
"""


def main(wheel: Path) -> None:
    """Render with ``wheel``. Raises CalledProcessError where a step fails, and InvalidMetadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        Metadata.from_email(archive.read(name), validate=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "env", with_pip=True)
        python = home / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", ROOT / "requirements" / "run.txt"], check=True)
        subprocess.run([*pip, "--no-deps", wheel], check=True)
        # Somewhere else, so that the source is not found.
        environ = {**os.environ, "PYTHONPATH": "", "PYTHONSAFEPATH": "1"}
        video = home / "out.mp4"
        subprocess.run([python, "-c", CHECK, video], check=True, cwd=home, env=environ)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
