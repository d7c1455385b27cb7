import pickle
import threading

import pytest

from ai_forge.cancel import NEVER, CancelToken
from ai_forge.errors import CancelledError, InternalError


def test_a_token_cancelled_in_another_thread_stops_the_work_at_its_next_check():
    token, steps = CancelToken(), []

    def work():
        while True:
            steps.append(len(steps))
            if len(steps) == 3:
                threading.Thread(target=token.cancel, args=("Ctrl-C",)).start()
            if len(steps) >= 3:
                while not token.cancelled:
                    pass
            token.check()

    with pytest.raises(CancelledError, match=r"Cancelled \(Ctrl-C\); what was done is kept"):
        work()
    assert steps == [0, 1, 2]


def test_the_first_reason_is_told():
    token = CancelToken()
    token.cancel("Ctrl-C")
    token.cancel("job deleted")
    with pytest.raises(CancelledError, match="Ctrl-C"):
        token.check()


def test_the_error_crosses_processes_with_its_exit_code():
    error = pickle.loads(pickle.dumps(CancelledError.because("Ctrl-C")))
    assert (error.exit_code, error.code) == (130, "cancelled")
    assert str(error) == str(CancelledError.because("Ctrl-C"))


def test_never_stays_uncancelled():
    with pytest.raises(InternalError, match="a token of your own"):
        NEVER.cancel("Ctrl-C")
    NEVER.check()
    assert not NEVER.cancelled
