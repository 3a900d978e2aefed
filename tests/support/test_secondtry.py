import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUSY = """
from pathlib import Path

def test_a_machine_that_was_busy():
    seen = Path(__file__).with_name("seen")
    assert seen.exists() or seen.write_text("") is None and 0
"""


def run(folder: Path, text: str, *arguments: str) -> tuple[int, str]:
    (folder / "test_it.py").write_text(text)
    pytest_program = (sys.executable, "-m", "pytest")
    own = ("-p", "tests.support.secondtry", "--rootdir", folder, "--max-worker-restart=0")
    ran = subprocess.run(
        [*pytest_program, *own, *arguments, "test_it.py"],
        cwd=folder,
        env={
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # it starts sooner
            "PYTEST_ADDOPTS": "-p xdist.plugin -p no:cacheprovider",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "1"])
def test_what_passes_alone_passes_and_is_named(processes: str, tmp_path: Path) -> None:
    code, said = run(tmp_path, BUSY, "-n", processes)
    assert code == 0
    *_, told = said.split("failed beside other tests, passed alone")
    assert "\ntest_it.py::test_a_machine_that_was_busy\n" in told
    assert "1 failed" in said


@pytest.mark.slow
def test_what_fails_again_fails(tmp_path: Path) -> None:
    code, said = run(tmp_path, BUSY + "\ndef test_wrong(): assert 0\n")
    assert (code, said.count("def test_wrong")) == (1, 2)
    assert "passed alone" not in said


@pytest.mark.slow
def test_without_failures_nothing_runs_twice(tmp_path: Path) -> None:
    code, said = run(tmp_path, "def test_right(): pass\n")
    assert (code, said.count("1 passed")) == (0, 1)


@pytest.mark.slow
def test_many_failures_are_no_accident(tmp_path: Path) -> None:
    wrong = "import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_wrong(n): assert 0\n"
    code, said = run(tmp_path, wrong)
    assert (code, "once more" in said) == (1, False)


@pytest.mark.slow
def test_a_process_that_dies_is_no_accident(tmp_path: Path) -> None:
    """The tests that it would have run are missing."""
    code, said = run(tmp_path, "import os\ndef test_dies(): os._exit(1)\n", "-n", "1")
    assert (code, "once more" in said) == (1, False)


@pytest.mark.slow
def test_what_cannot_be_imported_is_no_accident(tmp_path: Path) -> None:
    code, said = run(tmp_path, "import nothing_of_the_kind\n")
    assert (code != 0, "once more" in said) == (True, False)
