"""pytest in a room: which test calls which function, and which tests pass. Runs with the repository's own interpreter.

    pytest_driver.py map                     all tests; what each one calls
    pytest_driver.py run TEST…               these tests

The last line that it prints is the nonce from its environment and a JSON report. The code under test shares this process, so
the report also tells of a test that must fail (the canary, of an unforeseeable name, at an unforeseeable place): code that
makes every test pass gives itself away. Code that ends the process leaves no report.
"""

import json
import os
import random
import sys
import threading
from typing import Any

import pytest

NONCE = "AI_FORGE_NONCE"


class Canary(pytest.Item):
    """A test that fails."""

    def runtest(self) -> None:
        """Fail, as a test does."""
        assert self.name == "", self.name

    def reportinfo(self) -> tuple[str, int, str]:
        """Where it stands: nowhere."""
        return "canary", 0, self.name


class Watch:
    """A plugin that keeps outcomes, and calls of functions below `folder` where `folder` is given."""

    def __init__(self, folder: str | None, canary: str) -> None:
        self.outcomes: dict[str, str] = {}
        self.calls: dict[str, set[str]] = {}
        self._folder = folder
        self._canary = canary
        self._now = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Put the canary somewhere among the tests."""
        canary = Canary.from_parent(session, name=self._canary)
        items.insert(random.SystemRandom().randint(0, len(items)), canary)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Watch the calls of one test."""
        self._now = item.nodeid
        if self._folder:
            threading.setprofile(self._called)
            sys.setprofile(self._called)
        yield
        sys.setprofile(None)
        threading.setprofile(None)

    def _called(self, frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(self._folder):
            place = f"{os.path.relpath(frame.f_code.co_filename, self._folder)}:{frame.f_code.co_firstlineno}"
            self.calls.setdefault(place, set()).add(self._now)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The outcome of a test: its call's, or that of a phase that was no success."""
        name = report.nodeid
        if report.failed or (report.when == "call" and self.outcomes.get(name) != "failed"):
            self.outcomes[name] = report.outcome
        elif report.skipped:
            self.outcomes[name] = "skipped"


def main(mode: str, tests: list[str]) -> int:
    """pytest's exit code."""
    nonce = os.environ.pop(NONCE)
    canary = f"canary-{random.SystemRandom().getrandbits(64):x}"
    folder = None
    if mode == "map":
        folder = os.path.realpath(".") + os.sep
    watch = Watch(folder, canary)
    given = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--no-header", *tests]
    code = pytest.main(given, plugins=[watch])
    of_canary = [outcome for name, outcome in watch.outcomes.items() if name.endswith(canary)]
    outcomes = {name: outcome for name, outcome in watch.outcomes.items() if not name.endswith(canary)}
    report = {"outcomes": outcomes, "calls": {k: sorted(v) for k, v in watch.calls.items()}, "canary": of_canary}
    print(f"\n{nonce}{json.dumps(report)}", flush=True)
    return int(code)


if __name__ == "__main__":
    os._exit(main(sys.argv[1], sys.argv[2:]))  # at once: threads and exit handlers of the code have had their turn
