"""The property that every parser of foreign bytes has: it reads them, or says what is wrong."""

from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, given, settings
from tests.fuzz.costs import measured
from tests.fuzz.mutations import inputs
from tests.fuzz.target import Target

CASES: Final = 1000


def check_only_clear_errors(target: Target, folder: Path) -> None:
    """Try a thousand inputs. Raises what is no clear error, with the least damage that causes
    it, and AssertionError for an input that takes more memory than is allowed."""
    with target.opened(folder) as attempt:

        @settings(
            max_examples=CASES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs(target.seeds, target.words))
        def check(data: bytes) -> None:
            with measured() as cost:
                attempt(data)
            if cost.memory_told():  # of this process, in which others may take memory as well
                with measured() as cost:
                    attempt(data)
            assert not cost.memory_told(), cost.memory_told()

        check()
