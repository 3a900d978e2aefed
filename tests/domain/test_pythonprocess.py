"""Other Python processes run no code of the current folder."""

import ast
import subprocess
from pathlib import Path

import lipwire
from lipwire.domain.pythonprocess import python_command

SOURCE = Path(lipwire.__file__).parent


def test_modules_in_the_current_folder_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("print('a file of the current folder')")
    (tmp_path / "json.py").write_text("print('a file of the current folder')")
    for arguments in (("-c", "import json, numpy"), ("-m", "json.tool", "--help")):
        done = subprocess.run(
            python_command(*arguments), cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert "current folder" not in done.stdout


def test_every_other_python_process_is_started_so() -> None:
    """sys.executable is named nowhere else."""
    naming = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "executable" in text else ():
            attribute = isinstance(node, ast.Attribute) and node.attr == "executable"
            imported = isinstance(node, ast.alias) and node.name == "executable"
            if attribute or imported:
                naming.append(path.relative_to(SOURCE).as_posix())
    assert set(naming) == {"domain/pythonprocess.py"}
