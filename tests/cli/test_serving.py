from pathlib import Path

import pytest

from lipwire.cli.serving import Overrides
from lipwire.config import load_inference_config
from lipwire.domain import NotFound


def test_models_root_of_the_command_line_is_where_entries_without_a_path_lie(
    avatar_package: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"models: {{{avatar_package.name}: {{preload: true}}}}\n")
    environ = Overrides(models_root=avatar_package.parent).environ()
    loaded = load_inference_config(config, environ)
    assert loaded.models[avatar_package.name].path == avatar_package


def test_a_models_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no folder of avatars at .*nowhere"):
        Overrides(models_root=tmp_path / "nowhere").environ()
