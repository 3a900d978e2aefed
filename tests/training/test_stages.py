import pytest

from lipwire.domain import InvalidInput
from lipwire.training.stages import run_stage


def raising(error: BaseException) -> None:
    raise error


def test_a_stage_ends_with_what_became_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stage(lambda: None) == 0
    assert capsys.readouterr().err == ""
    assert run_stage(lambda: raising(InvalidInput("steps is 0; at least 1"))) == 1
    assert capsys.readouterr().err == "error: steps is 0; at least 1\n"
    assert run_stage(lambda: raising(KeyboardInterrupt())) == 130
    assert "run the same command to continue" in capsys.readouterr().err


def test_a_defect_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_stage(lambda: raising(ZeroDivisionError()))
