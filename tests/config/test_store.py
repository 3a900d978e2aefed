"""A store of avatars in the servers' files."""

from pathlib import Path

import pytest

from lipwire.config import InferenceConfig, load_inference_config
from lipwire.config.storesettings import is_store_url
from lipwire.domain import InvalidInput


def load(tmp_path: Path, yaml: str, **variables: str) -> InferenceConfig:
    file = tmp_path / "config.yaml"
    file.write_text(f"{yaml}\n")
    return load_inference_config(file, variables)


@pytest.mark.parametrize(
    "url", ["s3://bucket/avatars", "file:///srv/avatars", "memory://x", "gs://b"]
)
def test_models_root_may_be_a_store(tmp_path: Path, url: str) -> None:
    config = load(tmp_path, f"models_root: {url}")
    assert (config.store_url, config.models_folder) == (url, None)
    assert load(tmp_path, "", LIPWIRE_MODELS_ROOT=url).store_url == url


@pytest.mark.parametrize("root", ["avatars", "/srv/avatars", "s3:/x", "C:/avatars", "a b"])
def test_models_root_may_be_a_folder(tmp_path: Path, root: str) -> None:
    config = load(tmp_path, f"models_root: '{root}'")
    assert config.store_url is None
    assert isinstance(config.models_folder, Path)
    assert config.models_folder == config.models_root


@pytest.mark.parametrize("url", ["https://example.org/avatars", "http://x", "ftp://x", "data://x"])
def test_what_is_no_store_is_refused(tmp_path: Path, url: str) -> None:
    assert not is_store_url(url)
    with pytest.raises(InvalidInput, match=r"models_root is .*; allowed is a path, or the URL of"):
        load(tmp_path, f"models_root: {url}")


def test_entries_without_a_path_lie_in_the_store(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "models_root: s3://bucket/avatars\nmodels: {anna: {preload: true}, zoe: {path: zoe}}",
    )
    assert set(config.files) == {"zoe"}
    assert config.files["zoe"].folder == tmp_path / "zoe"


def test_how_avatars_are_taken_from_it(tmp_path: Path) -> None:
    store = load(tmp_path, "").store
    assert store.cache_folder is None
    assert (store.cache_bytes, store.poll_seconds, store.timeout_seconds) == (20 << 30, 30, 20)
    store = load(tmp_path, "store: {cache_folder: cache, cache_gb: 0.5, downloads: 2}").store
    assert (store.cache_folder, store.cache_bytes) == (tmp_path / "cache", 1 << 29)


@pytest.mark.parametrize(
    "yaml",
    [
        "cache_gb: 0",
        "poll_seconds: 0",
        "timeout_seconds: 0",
        "downloads: 0",
        "endpoint_url: minio",
        "compiled: x",
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, yaml: str) -> None:
    with pytest.raises(InvalidInput, match=r"store\."):
        load(tmp_path, f"store: {{{yaml}}}")
