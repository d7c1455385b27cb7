"""The runner: takes a run through its stages. The command line, a service and the guardian all drive this one.

    plan       which stages are done, which can be continued, which are to do, and which no one can tell yet
    run_stage  one stage, whose needs are met
    run_until  everything up to a stage

It owns the lock of the run, the cache and its manifests, `events.jsonl` in the run's folder, and what is told of a stage:
started, progress, finished, failed or cancelled. Whoever wants to stop a run cancels its token, from any thread; the stage at
work notices at its next progress or step. To resume is to call again. Signals are left to the caller.

What survives a crash: a stage's folder appears whole, with its manifest, or not at all; a resumable one works in
`<key>.work`, where the next attempt finds what was done. Locks go with the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ai_forge.cancel import NEVER, CancelToken
from ai_forge.errors import AIForgeError, CancelledError, InputError, InternalError
from ai_forge.events import (
    Event,
    EventStream,
    Notice,
    Sink,
    StageCancelled,
    StageFailed,
    StageFinished,
    StageStarted,
    ignore,
)
from ai_forge.json_lines import JsonObject
from ai_forge.pipeline.opened import Opened
from ai_forge.pipeline.recipes import Recipe, recipe_named
from ai_forge.pipeline.run import RECORD, Run, read_run
from ai_forge.pipeline.stage import NotMadeError, Outputs, Stage, StageContext, StageResult
from ai_forge.places import sealed
from ai_forge.workspace import (
    Workspace,
    atomic_folder,
    atomic_write,
    replace_folder,
    stage_key,
    write_manifest,
)

State = Literal["done", "resumable", "todo", "unknown"]
# a stage waits for another run that is just making the same output: as long as a training may take
WAIT_FOR_ANOTHER_S = 24 * 3600.0
RECORDED_PACKAGES = (
    *("ai-forge", "torch", "transformers", "bitsandbytes", "mlx", "mlx-lm"),
    *("xllamacpp", "gguf", "tokenizers", "numpy"),
)


@dataclass(frozen=True)
class Planned:
    """A stage of a run as it stands. `seconds`: what it took where it is done, else what the last one of its kind took."""

    name: str
    state: State
    key: str | None
    seconds: float | None
    text: str


@dataclass
class Ending:
    """What is told of a stage when it ends well, filled in while it runs; see `StageFinished`."""

    counts: JsonObject = field(default_factory=dict)
    text: str = ""
    cached: bool = False


class Runner:
    """One run and its stages; a context manager that holds the run's lock and writes its events.

    Args:
        run: what is to be made.
        workspace: where everything is kept.
        emit: hears the events.
        cancel: ends the work when it is cancelled.
        early: events of the run from before there was a runner.
        recipe: stages in place of those that the run names, for experiments that change one.
    """

    def __init__(
        self,
        run: Run,
        workspace: Workspace,
        emit: Sink = ignore,
        cancel: CancelToken = NEVER,
        early: tuple[Event, ...] = (),
        recipe: Recipe | None = None,
    ) -> None:
        self.run = run
        self.workspace = workspace
        self.cancel = cancel
        self.recipe = recipe or recipe_named(run.recipe)
        self.stages = tuple(stage for stage in self.recipe.stages if stage.applies(run))
        self.folder = workspace.runs_dir / run.id
        self._listener = emit
        self._early = early
        self._results: dict[str, StageResult] = {}
        self._told = set[str]()
        self._entered = contextlib.ExitStack()
        self._depth = 0
        self.emit: Sink = emit
        # through `self`, because entering the run puts its event stream in the place of `emit`
        self.opened = Opened(run, workspace, lambda event: self.emit(event))

    # -- holding the run ----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Hold the run. Raises `TransientError` where another process or thread has it."""
        if self._depth == 0:
            self._entered.enter_context(self.workspace.lock(f"run-{self.run.id}"))
            self.folder.mkdir(parents=True, exist_ok=True)
            if read_run(self.folder) is None:  # none yet, or damaged
                atomic_write(self.folder / RECORD, json.dumps(sealed(self._record()), indent=1))
            events = self.folder / "events.jsonl"
            for event in self._early:  # to the file only: the listener has heard them
                EventStream(events)(event)
            self._early = ()
            self.emit = EventStream(events, self._listener)
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._entered.close()
            self.emit = self._listener

    def _record(self) -> dict[str, object]:
        """What a reader of the run's folder wants to know: the run, when it began, and on what machine."""
        installed = {d.metadata["Name"].lower() for d in metadata.distributions()}
        return {
            "run": self.run.model_dump(mode="json"),
            "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "base": {"name": self.opened.base.name, "fingerprint": self.run.base},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: metadata.version(name) for name in RECORDED_PACKAGES if name in installed},
        }

    # -- what there is ------------------------------------------------------------------------------------------

    def plan(self, until: str | None = None) -> list[Planned]:
        """Every stage, or those up to `until`, as it stands. Nothing is run.

        Raises:
            InputError: there is no such stage.
        """
        keys: dict[str, str | None] = {}
        results: dict[str, StageResult] = {}
        rows = []
        for stage in self._needed_by(until):
            key = self._key(stage, Outputs(keys, results))
            keys[stage.name] = key
            found = None if key is None else self._finished(stage, key)
            if found is not None:
                results[stage.name] = found
                rows.append(Planned(stage.name, "done", key, found.seconds, found.summary.sentence()))
                continue
            state: State = "todo"
            if key is None:
                state = "unknown"
            elif self.workspace.stage_folder(stage.name, f"{key}.work").is_dir():
                state = "resumable"
            rows.append(Planned(stage.name, state, key, self._last_seconds(stage), ""))
        return rows

    def outputs(self) -> Outputs:
        """What has been made of this run so far."""
        keys: dict[str, str | None] = {}
        outputs = Outputs(keys, self._results)  # sees each stage's key and result as soon as they are known
        for stage in self.stages:
            key = keys[stage.name] = self._key(stage, outputs)
            known = self._results.get(stage.name)
            if key is None or (known is not None and known.key == key):
                continue
            self._results.pop(stage.name, None)
            found = self._finished(stage, key)
            if found is not None:
                self._results[stage.name] = found
        return outputs

    def _key(self, stage: Stage, outputs: Outputs) -> str | None:
        try:
            return stage_key(stage=stage.name, version=stage.version, **stage.inputs(self.run, outputs))
        except NotMadeError:
            return None

    def _finished(self, stage: Stage, key: str) -> StageResult | None:
        manifest = self.workspace.finished(stage.name, key)
        if manifest is None:
            return None
        try:
            summary = stage.summary.model_validate(manifest["counts"])
        except (KeyError, ValueError):  # damaged, or of a version that said something else
            return None
        folder = self.workspace.stage_folder(stage.name, key)
        seconds = manifest.get("seconds")
        seconds = float(seconds) if isinstance(seconds, int | float) else 0.0
        return StageResult(stage.name, key, folder, summary, seconds, True)

    def _last_seconds(self, stage: Stage) -> float | None:
        """How long the newest output of this stage took, of whatever run."""
        manifests = (self.workspace.cache_dir / stage.name).glob("*/manifest.json")
        files = [path for path in manifests if path.is_file()]  # not a link that leads nowhere
        newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            return None
        content = self.workspace.finished(stage.name, newest.parent.name) or {}
        seconds = content.get("seconds")
        return float(seconds) if isinstance(seconds, int | float) else None

    def _needed_by(self, until: str | None) -> list[Stage]:
        """The stages up to `until`, in order: those that it needs, however far, and itself."""
        if until is None:
            return list(self.stages)
        names = {stage.name: stage for stage in self.stages}
        if until not in names:
            raise InputError(f"Recipe {self.run.recipe} has no stage {until!r}.", f"its stages are {', '.join(names)}.")
        needed, waiting = set[str](), [until]
        while waiting:
            name = waiting.pop()
            if name not in needed and name in names:  # a stage may need one that this run does not have: `prefer`
                needed.add(name)
                waiting += names[name].needs
        return [stage for stage in self.stages if stage.name in needed]

    # -- doing it -----------------------------------------------------------------------------------------------

    def run_until(self, name: str) -> StageResult:
        """Run `name` and before it everything that it needs and that is not done.

        Raises:
            InputError: there is no such stage; and whatever a stage raises.
            CancelledError: the token was cancelled; the same call continues.
        """
        with self:
            stages = self._needed_by(name)
            for stage in stages:
                result = self._run(stage)
        return result

    def run_stage(self, name: str) -> StageResult:
        """Run `name` alone.

        Raises:
            InputError: there is no such stage, or one that it needs is not done; and whatever the stage raises.
            CancelledError: the token was cancelled; the same call continues.
        """
        with self:
            (*before, stage) = self._needed_by(name)
            outputs = self.outputs()
            for needed in before:
                try:
                    outputs.folder(needed.name)
                except NotMadeError:
                    raise InputError(
                        f"{name} needs {needed.name}, which is not done.",
                        f"run the stages before it: run_until({name!r}).",
                    ) from None
            return self._run(stage)

    def _run(self, stage: Stage) -> StageResult:
        if stage.name in self._told and stage.name in self._results:
            return self._results[stage.name]  # one runner tells of each stage once, however often it is asked for
        with self.reporting(stage.name) as ending:
            self.cancel.check()
            outputs = self.outputs()
            try:
                key = outputs.key(stage.name)
            except NotMadeError:
                raise InternalError(f"The key of {stage.name} is not known though what it needs is done.") from None
            result = self._results.get(stage.name) or self._build(stage, key, outputs)
            ending.counts = result.summary.model_dump(mode="json")
            ending.text = result.summary.sentence()
            ending.cached = result.cached
            self._results[stage.name] = dataclasses.replace(result, cached=True)
            self._told.add(stage.name)
        return result

    def _build(self, stage: Stage, key: str, outputs: Outputs) -> StageResult:
        """Make the output of `stage`, unless another process has just made it."""
        lock = f"{stage.name}-{key}"
        with self.workspace.lock(lock, wait_s=WAIT_FOR_ANOTHER_S, check=self._waiting(stage.name)):
            # looked again under the lock: whoever held it until now may have made the very same
            made_by_another = self._finished(stage, key)
            if made_by_another is not None:
                return made_by_another
            began = time.monotonic()
            target = self.workspace.stage_folder(stage.name, key)
            with self._place(stage, key, target) as folder:
                summary = stage.build(self.context(stage.name, folder, outputs))
                self.cancel.check()  # a stage may end without having noticed: then it is not done
                seconds = time.monotonic() - began
                counts = summary.model_dump(mode="json")
                write_manifest(folder, counts, seconds=round(seconds, 3), version=stage.version)
        return StageResult(stage.name, key, target, summary, seconds, False)

    def context(self, stage: str, folder: Path, outputs: Outputs | None = None) -> StageContext:
        """What a stage that works in `folder` is given."""
        known = outputs or self.outputs()
        return StageContext(self.run, stage, known, folder, self.opened, self.workspace, self.emit, self.cancel)

    @contextlib.contextmanager
    def _place(self, stage: Stage, key: str, target: Path) -> Iterator[Path]:
        """The folder to build in, which becomes `target` when all went well."""
        if not stage.resumable:
            with atomic_folder(target) as folder:
                yield folder
            return
        work = self.workspace.work_folder(stage.name, key)
        try:
            yield work
        except BaseException:
            if not any(work.iterdir()):  # it did not come to work, so there is nothing that `plan` could call resumable
                work.rmdir()
            raise
        replace_folder(work, target)

    def _waiting(self, name: str) -> Callable[[], None]:
        told = False

        def check() -> None:
            nonlocal told
            self.cancel.check()
            if not told:
                self.emit(Notice("info", f"Another run is just making the same {name}: waiting for it."))
                told = True

        return check

    @contextlib.contextmanager
    def reporting(self, name: str) -> Iterator[Ending]:
        """Report that `name` starts, and how it ends; the block fills in what is told then."""
        began = time.monotonic()
        ending = Ending()
        self.emit(StageStarted(name))
        # what a reader of `events.jsonl` sees never stops at "started", however the stage ends
        try:
            yield ending
        except CancelledError as error:
            self.emit(StageCancelled(name, time.monotonic() - began, error.message))
            raise
        except KeyboardInterrupt:
            self.emit(StageCancelled(name, time.monotonic() - began, "interrupted"))
            raise
        except AIForgeError as error:
            self.emit(StageFailed(name, time.monotonic() - began, error.code, error.message, error.next_step))
            raise
        except BaseException as error:
            self.emit(StageFailed(name, time.monotonic() - began, "internal", f"{type(error).__name__}: {error}"))
            raise
        self.emit(StageFinished(name, time.monotonic() - began, ending.cached, ending.counts, ending.text))
