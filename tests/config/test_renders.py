"""The keys of finished videos."""

from pathlib import Path

import pytest

from lipwire.config import check_config, load_compositing_config

WEBHOOKS = "webhooks: {url: 'http://localhost:1/', secret: sixteen letters!}"


def test_none_are_made_without_a_folder(tmp_path: Path) -> None:
    renders = load_compositing_config(None, {}).renders
    assert not renders.enabled
    assert (renders.workers, renders.max_queued, renders.retention_hours) == (1, 100, 168)
    given = load_compositing_config(None, {"LIPWIRE_RENDERS__FOLDER": str(tmp_path)}).renders
    assert (given.enabled, given.folder) == (True, tmp_path)
    assert given.disk_budget_bytes == 10_240 << 20


def test_secrets_are_shown_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"renders: {{folder: videos, url_secret: of sixteen letters, {WEBHOOKS}}}\n")
    config = load_compositing_config(path, {})
    assert config.renders.folder == tmp_path / "videos"
    assert config.renders.url_secret is not None
    assert config.renders.url_secret.get_secret_value() == "of sixteen letters"
    for secret in ("of sixteen letters", "sixteen letters!"):
        assert secret not in repr(config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WEBHOOKS, "folder is missing"),
        ("folder: x, webhooks: {url: 'http://localhost/'}", "secret is missing"),
        ("folder: x, webhooks: {from_requests: true}", "secret is missing"),
        ("folder: x, webhooks: {secret: 'whsec_no base sixty-four'}", "webhooks.secret is not"),
        ("folder: x, url_secret: short", "renders.url_secret is not as it has to be"),
        ("folder: x, previous_url_secret: sixteen letters!", "url_secret is missing"),
        ("cache: {url: 's3://b'}", "folder is missing"),
        ("folder: x, cache: {url: 's3://b'}", "redis.url is missing"),
        ("folder: x, cache: {url: /srv}", "renders.cache.url is /srv; allowed is a URL"),
        ("folder: x, cache: {url: 'https://b/c'}", "a URL as s3://BUCKET/FOLDER or file:///"),
        ("folder: x, disk_budget_mb: 0", "renders.disk_budget_mb is 0"),
        ("folder: x, workers: 65", "renders.workers is 65; allowed is 1 to 64"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"renders: {{{text}}}\n")
    problems = check_config(path, {}, "compositing").problems
    assert [said in str(problem) for problem in problems] == [True], problems
