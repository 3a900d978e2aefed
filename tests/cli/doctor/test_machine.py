from __future__ import annotations

from collections.abc import Sequence

import pytest

from lipwire.cli.doctor.checks import Outcome
from lipwire.cli.doctor.machine import clock, cores, memory, open_files
from lipwire.config import CompositingConfig, InferenceConfig
from lipwire.config.compositing import CompositingCapacitySettings, CompositingServerSettings
from lipwire.config.inference import InferenceCapacitySettings

GIB = 1024**3
SIX_PROCESSES = CompositingConfig(server=CompositingServerSettings(workers=6))
LARGE = InferenceConfig(capacity=InferenceCapacitySettings(max_memory_gb=64))


@pytest.mark.parametrize(
    ("avatars", "limit", "outcome"),
    [
        (10, None, Outcome.OK),
        (10, 256 + 4 * 10 + 8 * 64, Outcome.OK),
        (10, 256 + 4 * 10 + 8 * 64 - 1, Outcome.FAULT),
        (11_000, 1024, Outcome.FAULT),
    ],
)
def test_the_limit_of_open_files_has_to_be_enough_for_avatars_and_sessions(
    avatars: int, limit: int | None, outcome: Outcome
) -> None:
    check = open_files([CompositingConfig(), InferenceConfig()], avatars, limit)
    assert check.outcome is outcome
    assert ("LimitNOFILE" in check.action) == (outcome is Outcome.FAULT)


def test_no_more_avatars_count_than_may_be_in_memory() -> None:
    config = CompositingConfig(capacity=CompositingCapacitySettings(max_models=5))
    assert open_files([config], 11_000, 1024).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("configs", "usable", "quota", "outcome"),
    [
        ([], 2, None, Outcome.OK),
        ([], 1, None, Outcome.WARNING),
        ([CompositingConfig(), InferenceConfig()], 2, 1.5, Outcome.OK),
        ([SIX_PROCESSES], 4, None, Outcome.WARNING),
        ([SIX_PROCESSES], 6, None, Outcome.OK),
    ],
)
def test_processes_need_cores(
    configs: Sequence[CompositingConfig | InferenceConfig],
    usable: int,
    quota: float | None,
    outcome: Outcome,
) -> None:
    check = cores(configs, usable, quota)
    assert check.outcome is outcome
    assert ("quota of the control group: 1.5" in check.seen) == (quota is not None)


@pytest.mark.parametrize(
    ("configs", "usable_gib", "preloaded_gib", "outcome"),
    [
        ([CompositingConfig()], 8, 0, Outcome.OK),
        ([CompositingConfig()], 1, 0, Outcome.WARNING),
        ([CompositingConfig()], 8, 7, Outcome.WARNING),
        ([SIX_PROCESSES], 8, 0, Outcome.WARNING),
        ([LARGE], 8, 0, Outcome.FAULT),
        ([LARGE], 128, 0, Outcome.OK),
    ],
)
def test_what_may_be_held_has_to_fit_into_memory(
    configs: Sequence[CompositingConfig | InferenceConfig],
    usable_gib: int,
    preloaded_gib: int,
    outcome: Outcome,
) -> None:
    check = memory(configs, usable_gib * GIB, preloaded_gib * GIB)
    assert check.outcome is outcome
    assert check.seen == f"{usable_gib:.1f} GiB"


def chrony(offset: str, leap: str = "Normal") -> str:
    return f"A29FC801,162.159.200.1,4,1764441000.1,{offset},0.1,0.1,1,0,0,0.01,0.001,64.2,{leap}\n"


@pytest.mark.parametrize(
    ("answers", "outcome", "seen"),
    [
        ({"chronyc": chrony("-0.000123")}, Outcome.OK, "off by 0.000 s (chrony)"),
        ({"chronyc": chrony("2.5")}, Outcome.FAULT, "off by 2.500 s (chrony)"),
        ({"chronyc": chrony("0", "Not synchronised")}, Outcome.WARNING, "not set"),
        ({"timedatectl": "yes\n"}, Outcome.OK, "set by a time server (systemd)"),
        ({"timedatectl": "no\n"}, Outcome.WARNING, "not set by a time server (systemd)"),
        ({"timedatectl": ""}, Outcome.NOT_APPLICABLE, "neither"),
        ({}, Outcome.NOT_APPLICABLE, "neither"),
    ],
)
def test_whoever_sets_the_clock_is_asked(
    answers: dict[str, str], outcome: Outcome, seen: str
) -> None:
    check = clock(lambda words: answers.get(words[0]))
    assert check.outcome is outcome
    assert check.seen.startswith(seen)
