import pytest

from ai_forge.errors import AIForgeError, InputError, InternalError, PrerequisiteError, TransientError
from ai_forge.preflight import problems, require


def failing(error: BaseException):
    def check() -> None:
        raise error

    return check


LOCKED = TransientError("The run is locked by process 12.", "try again.")
NO_DISK = PrerequisiteError("1.0 GB are free.", "free some space.")
LONG = InputError("num_ctx is 8192.", "set it to 4096.")


def test_all_problems_are_found_and_those_of_settings_come_first():
    assert problems([failing(LOCKED), lambda: "fine", failing(NO_DISK), failing(LONG)]) == [LONG, NO_DISK, LOCKED]


def test_nothing_in_the_way_raises_nothing():
    require([lambda: None, lambda: False])


def test_a_single_problem_is_raised_as_it_is():
    with pytest.raises(PrerequisiteError) as caught:
        require([failing(NO_DISK), lambda: None])
    assert caught.value is NO_DISK


@pytest.mark.parametrize(
    ("errors", "kind", "code"),
    [
        ((LOCKED, NO_DISK), PrerequisiteError, 3),
        ((LOCKED, LOCKED), TransientError, 4),
        ((NO_DISK, LONG), InputError, 2),
    ],
)
def test_several_become_one_of_the_class_of_the_most_urgent(
    errors: tuple[AIForgeError, ...], kind: type[AIForgeError], code: int
):
    with pytest.raises(kind) as caught:
        require([failing(error) for error in errors])
    assert caught.value.exit_code == code
    assert str(caught.value).startswith("2 things stand in the way.\n1. ")
    for error in errors:
        assert str(error) in str(caught.value)


def test_a_bug_in_a_check_is_not_collected():
    with pytest.raises(ZeroDivisionError):
        problems([failing(NO_DISK), failing(ZeroDivisionError())])


def test_our_own_bugs_come_last():
    bug = InternalError("An invariant did not hold.")
    assert problems([failing(bug), failing(LOCKED)]) == [LOCKED, bug]
