"""Each key of the section ``renders`` reaches what it is for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.datastructures import QueryParams
from tests.support.waiting import Clock

from lipwire.config import CompositingConfig, load_compositing_config
from lipwire.config.compositing import SpeechSettings
from lipwire.config.rendersettings import RendersSettings
from lipwire.renders import RenderRules, SignedLinks, WebhookRules
from lipwire.renders.cache import RenderCache
from lipwire.wiring import renders

PATH = "/v1/renders/abc/"
TEXT = """
redis: {url: 'redis://localhost'}
renders:
  folder: videos
  max_queued: 7
  max_queued_of_tenant: 3
  workers: 2
  max_duration: 90
  retention_hours: 0.5
  disk_budget_mb: 11
  url_secret: the secret of now
  previous_url_secret: the secret before
  url_lifetime: 45
  public_url: https://videos.example.org
  webhooks:
    url: https://hooks.example.org/ended
    from_requests: true
    secret: a secret of webhooks
    timeout_seconds: 4
    max_tries: 6
  cache:
    url: file:///srv/renders
    endpoint_url: https://minio.example.org:9000
    timeout_seconds: 3
"""


def settings_of(tmp_path: Path) -> RendersSettings:
    path = tmp_path / "compositing.yaml"
    path.write_text(TEXT)
    return load_compositing_config(path, {}).renders


def test_every_key_has_another_value_here_than_by_itself(tmp_path: Path) -> None:
    given, usual = settings_of(tmp_path).model_dump(), RendersSettings().model_dump()
    assert not [name for name, value in given.items() if value == usual[name]]
    for section in ("webhooks", "cache"):
        keys = given[section].items()
        assert not [name for name, value in keys if value == usual[section][name]]


def test_limits_reach_the_queue(tmp_path: Path) -> None:
    assert renders._rules(settings_of(tmp_path)) == RenderRules(
        max_queued=7,
        max_queued_of_tenant=3,
        workers=2,
        max_duration_s=90,
        retention_s=1800,
        disk_budget_bytes=11 << 20,
    )


def test_links_are_signed_with_the_secret_of_now_and_last_as_long_as_said(tmp_path: Path) -> None:
    links = renders._links(settings_of(tmp_path))
    assert links is not None
    clock = Clock()
    links._now = clock
    text, expires_s = links.query(PATH)
    assert expires_s == clock.now + 45
    now = SignedLinks("the secret of now", lasts_s=1, now=clock)
    assert now.check("GET", PATH, QueryParams(text)) == 45
    before = SignedLinks("the secret before", lasts_s=30, now=clock)
    assert links.check("GET", PATH, QueryParams(before.query(PATH)[0])) == 30


def test_the_store_of_shared_videos_is_opened_as_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def note(*given: object, **named: object) -> None:
        opened.append((given, named))

    monkeypatch.setattr(renders, "ObjectStore", note)
    unused: Any = None
    redis: Any = object()

    def cache(settings: RendersSettings, redis: Any) -> RenderCache | None:
        config = CompositingConfig.model_construct(renders=settings)
        return renders._cache(config, unused, unused, unused, redis, None)

    made = cache(settings_of(tmp_path), redis)
    assert made is not None
    assert made._videos._retention_s == 1800
    named = {"endpoint_url": "https://minio.example.org:9000", "timeout_s": 3}
    assert opened == [(("file:///srv/renders",), {**named, "what": "store of renders"})]
    assert cache(settings_of(tmp_path), None) is None
    assert cache(RendersSettings(), redis) is None


def test_a_voice_is_told_by_all_that_its_sound_depends_on() -> None:
    voice: Any = SimpleNamespace(name="openai")

    def said_by(**settings: Any) -> str:
        return renders._said_by(SpeechSettings(**settings), voice)

    usual = said_by()
    assert said_by(api_key="secret", timeout_seconds=5) == usual
    for other in (
        {"speed": 1.5},
        {"language": "de"},
        {"url": "http://localhost/v1"},
        {"model": "tts-2"},
        {"voice_name": "echo"},
    ):
        assert said_by(**other) != usual


def test_webhooks_are_sent_as_said(tmp_path: Path) -> None:
    assert renders._webhooks(settings_of(tmp_path).webhooks) == WebhookRules(
        "a secret of webhooks", "https://hooks.example.org/ended", True, 4, 6
    )
    assert renders._webhooks(RendersSettings().webhooks) is None
