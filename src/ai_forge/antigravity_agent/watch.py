"""`guardian watch`: looks at a repository on a schedule and when it changed, and runs the cycles that are due.

In a git repository what moves is watched (`.git/refs`, `.git/logs`, the agent folder), not every file: a commit, a tag, a switch, a
rebase all show there, and a large repository costs nothing. A folder without git is watched whole. A burst of changes is
looked at once, some time after its last. The note that a git hook writes (`hooks`) wakes it as well, where no change is seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ai_forge.antigravity_agent.after_deployment import take_back_if_broken
from ai_forge.antigravity_agent.cycle import CycleRecord
from ai_forge.antigravity_agent.decide import Decision
from ai_forge.antigravity_agent.hooks import git_folder
from ai_forge.antigravity_agent.repo_guardian import RepoGuardian
from ai_forge.cancel import CancelToken
from ai_forge.data_pipeline.handbook.agent_folder import AGENT_FOLDERS
from ai_forge.errors import AIForgeError
from ai_forge.events import Notice, Sink, ignore
from ai_forge.places import expanded

__all__ = ["NOTE", "Following", "Watch", "watched_paths"]

MakeGuardian = Callable[[], RepoGuardian]
NOTE = "note"
OWN_FILES = ("cycle.json", "history.jsonl", "stop")


class Following(CancelToken):
    """A token of its own that ends with another one: a cycle may be stopped without its watch."""

    def __init__(self, parent: CancelToken) -> None:
        super().__init__()
        self._parent = parent

    @property
    def cancelled(self) -> bool:
        """Whether someone has asked either to end."""
        if self._parent.cancelled and not super().cancelled:
            self.cancel(self._parent.reason)
        return super().cancelled


def watched_paths(guardian: RepoGuardian) -> list[Path]:
    """What shows that something moved; the folder of the hook's note among it."""
    root = expanded(guardian.project.repository).resolve()
    notes = guardian.cycles.folder
    notes.mkdir(parents=True, exist_ok=True)
    git = git_folder(root)
    found = [notes]
    if git is None:
        found.append(root)
    else:
        # with packed refs `refs` may be all but empty, and `logs` is off in some: between them a commit always shows
        found += [folder for folder in (git / "refs", git / "logs") if folder.is_dir()]
        found += [root / name for name in AGENT_FOLDERS if (root / name).is_dir() and not (root / name).is_symlink()]
    return found


class Watch:
    """Looks, decides, acts, until it is cancelled.

    Args:
        make: makes a guardian for each look: its token ends with the cycle that it stopped.
        emit: hears what is decided.
        cancel: ends the watch.
    """

    def __init__(self, make: Sequence[MakeGuardian], emit: Sink = ignore, cancel: CancelToken | None = None) -> None:
        self._make = make
        self._emit = emit
        self._cancel = cancel or CancelToken()

    def run(self) -> None:
        """Watch. A cycle that was cut off is continued first. Returns when the token is cancelled."""
        guardians = [make() for make in self._make]
        settings = guardians[0].settings
        paths = list(dict.fromkeys(path for guardian in guardians for path in watched_paths(guardian)))
        # heard from before the first look on, so that what changes during a look is looked at after it
        changed, ended = threading.Event(), threading.Event()
        thread = threading.Thread(target=self._listen, args=(paths, changed, ended), daemon=True)
        thread.start()
        try:
            self.look()
            next_look = time.monotonic() + settings.check_every_h * 3600
            while not self._cancel.cancelled:
                is_due = time.monotonic() >= next_look
                if changed.wait(0.2):
                    self._settle(changed, settings.debounce_s)
                    if self._cancel.cancelled:
                        break
                elif not is_due:
                    continue
                # the deployed model is loaded and asked on schedule, not with every commit
                self.look(ask_model=is_due)
                if is_due:
                    next_look = time.monotonic() + settings.check_every_h * 3600
        finally:
            ended.set()
            thread.join(10)

    def _settle(self, changed: threading.Event, debounce_s: float) -> None:
        """Until nothing has changed for `debounce_s`."""
        changed.clear()
        until = time.monotonic() + debounce_s
        while time.monotonic() < until and not self._cancel.cancelled:
            if changed.wait(min(0.2, max(0.01, debounce_s))):
                changed.clear()
                until = time.monotonic() + debounce_s

    def _listen(self, paths: list[Path], changed: threading.Event, ended: threading.Event) -> None:
        from watchfiles import watch

        def matters(_: object, path: str) -> bool:
            # locks come and go with every git command, and what a cycle writes of itself is no change of the repository
            name = Path(path).name
            return not name.endswith(".lock") and not name.startswith(".") and name not in OWN_FILES

        for _ in watch(
            *paths, stop_event=ended, watch_filter=matters, debounce=200, rust_timeout=500, yield_on_timeout=False
        ):
            changed.set()

    def look(self, *, ask_model: bool = True) -> list[tuple[Decision, CycleRecord | None]]:
        """Observe, decide, and run what is due, for each guardian; what cannot be done is told, and the watch goes on.

        With `ask_model` the deployed version is asked what it was asked when it was deployed, and taken back where it fails.
        """
        results = []
        for make in self._make:
            if self._cancel.cancelled:
                break
            guardian = make()
            try:
                results.append(self._look(guardian, ask_model))
            except AIForgeError as error:
                self._emit(Notice("warning", str(error)))
        return results

    def _look(self, guardian: RepoGuardian, ask_model: bool) -> tuple[Decision, CycleRecord | None]:
        (guardian.cycles.folder / NOTE).unlink(missing_ok=True)
        text = take_back_if_broken(guardian) if ask_model else None
        if text is not None:
            self._emit(Notice("warning", text))
        cut_off = guardian.was_cut_off()
        waiting = guardian.cycles.asked()
        decision = guardian.monitor_repository()
        recipe = guardian.project.recipe
        self._emit(
            Notice("info", f"{recipe}: {'retrain' if decision.should_retrain else 'no retraining'}: {decision.reason}")
        )
        record = None
        if cut_off or waiting or decision.should_retrain:
            reason = decision.reason if decision.should_retrain else waiting or "the cycle before was cut off"
            record = guardian.run_cycle(reason)
            if record is not None:
                self._emit(Notice("info", f"{recipe}: {record.state}: {record.text}"))
        return decision, record
