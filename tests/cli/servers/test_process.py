import sys
from pathlib import Path

import pytest

from lipwire.cli.servers import allocator, openfiles
from lipwire.cli.servers.process import Overrides, run_server
from lipwire.config import load_inference_config
from lipwire.domain import AvatarFiles, NotFound, Unavailable


def test_models_root_of_the_command_line_is_where_entries_without_a_path_lie(
    avatar_package: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"models: {{{avatar_package.name}: {{preload: true}}}}\n")
    environ = Overrides(models_root=str(avatar_package.parent)).environ()
    loaded = load_inference_config(config, environ)
    assert loaded.files == {avatar_package.name: AvatarFiles(folder=avatar_package)}


def test_a_models_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no folder of avatars at .*nowhere"):
        Overrides(models_root=str(tmp_path / "nowhere")).environ()


def test_a_servers_process_is_set_up_before_it_opens_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []
    before_s = sys.getswitchinterval()
    monkeypatch.setattr(allocator, "keep_few_arenas", lambda: seen.append("arenas"))
    monkeypatch.setattr(openfiles, "raise_file_limit", lambda: seen.append("files"))

    def open_server(*_: object) -> object:
        seen.append(round(sys.getswitchinterval(), 4))
        raise Unavailable("the port is taken")

    try:
        with pytest.raises(Unavailable):
            run_server(
                "a server",
                load_inference_config(None, {}),
                Overrides(),
                {},
                open_server,  # type: ignore[arg-type]  # it never gives a server
            )
    finally:
        sys.setswitchinterval(before_s)
    assert seen == ["arenas", "files", 0.0005]
