"""`ai-forge guardian …`: watch a repository, retrain its model when that is due, deploy what is better."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.options import STOPPING, AsJson, Options, Repo, Words, readable, with_options
from ai_forge.cli.output import show, table, warn
from ai_forge.errors import AIForgeError
from ai_forge.wording import duration

if TYPE_CHECKING:
    from ai_forge.antigravity_agent.cycle import CycleRecord
    from ai_forge.antigravity_agent.decide import Decision
    from ai_forge.antigravity_agent.observing.observe import Observation
    from ai_forge.antigravity_agent.project import ProjectConfig

guardian_app = typer.Typer(cls=Words, help="Keep the model of a repository fresh by itself.", no_args_is_help=True)
N_NAMED = 8
OF_GUARDIAN = ("base", "set", "config", "home", "recipe", "name")
EXIT_CODES = {kind.code: kind.exit_code for kind in AIForgeError.__subclasses__()}


def project_of(options: Options, repo: Path) -> ProjectConfig:
    """The project that was named."""
    from ai_forge.antigravity_agent.project import ProjectConfig

    return ProjectConfig(
        repository=readable(repo),
        recipe=options.recipe or "repository",
        name=options.name,
        home=options.home,
        settings=options.settings().settings,
    )


@guardian_app.command()
@with_options(*OF_GUARDIAN)
def status(options: Options, repo: Repo = Path(), json: AsJson = False) -> None:
    """What changed since the last training; is another one due. Changes nothing."""
    from ai_forge.antigravity_agent.decide import decide
    from ai_forge.antigravity_agent.repo_guardian import RepoGuardian
    from ai_forge.pipeline.runs import damaged_runs

    guardian = RepoGuardian(project_of(options, repo))
    seen = guardian.observe()
    decision = decide(seen, guardian.settings)
    value = {**decision.model_dump(), "observation": seen.model_dump(mode="json")}
    show(value, lambda: _print_status(seen, decision), json)
    for sentence in damaged_runs(guardian.workspace):  # one of them may be of a later training than what is told
        warn(sentence)
    if seen.problem is not None:
        raise typer.Exit(2)


def _print_status(seen: Observation, decision: Decision) -> None:
    from rich.console import Console

    out = Console(highlight=False, markup=False, soft_wrap=True)
    # names are escaped: one with control characters could otherwise rewrite what stands on the terminal
    out.print(printable(str(seen.repository)))
    if seen.problem is not None:
        out.print(printable(seen.problem))
    elif seen.last_training is None:
        out.print("never trained")
    else:
        trained = seen.last_training
        commit = f", commit {trained.commit[:12]}" if trained.commit else ""
        out.print(f"last training  {trained.version}, {trained.at.astimezone():%Y-%m-%d %H:%M}{commit}")
        for label, names in (("files", seen.files), ("critical files", seen.critical_files), ("new tags", seen.tags)):
            if names:
                more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
                out.print(f"{label:<15}{len(names)}: {', '.join(map(printable, names[:N_NAMED]))}{more}")
        figures = {
            "commits": seen.commits,
            "not committed": seen.n_uncommitted or None,
            "blocks changed": None if seen.block_share is None else f"{seen.block_share:.1%}",
            "history": "rewritten since" if seen.rewritten else None,
        }
        for label, figure in figures.items():
            if figure is not None:
                out.print(f"{label:<15}{figure}")
    verdict = "retrain" if decision.should_retrain else "no retraining"
    out.print(f"{verdict}: {decision.reason}")


def printable(text: str) -> str:
    r"""Text with everything that is no visible character written out.

    >>> printable("a\x1b[2Jb\u202ec")
    'a\\x1b[2Jb\\u202ec'
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


# -- act ------------------------------------------------------------------------------------------------------------------


@guardian_app.command()
@with_options()
def run(options: Options, repo: Repo = Path(), json: AsJson = False) -> None:
    """Run a cycle now. Data, training, verdict, and a deployment if the gate says so. One that was cut off goes on."""
    from ai_forge.antigravity_agent.repo_guardian import RepoGuardian
    from ai_forge.cancel import cancelled_by_interrupt
    from ai_forge.cli.display import Display

    project = project_of(options, repo)
    with Display() as display, cancelled_by_interrupt(lambda: warn(STOPPING)) as token:
        record = RepoGuardian(project, emit=display, cancel=token).run_cycle()
    if record is None:
        text = "A cycle is at work: this one follows it, together with whatever else is asked for meanwhile."
        show({"joined": True}, text, json)
        return
    show(record.model_dump(mode="json"), lambda: _print_cycle(record), json)
    code = EXIT_CODES.get(record.error or "", 0)
    if code:
        raise typer.Exit(code)


def _print_cycle(record: CycleRecord) -> None:
    rows = [[t.name, t.state, duration(t.seconds), printable(t.text)] for t in record.tasks]
    table(("task", "ended", "time", "what came of it"), rows, right=("time",))
    print(f"\n{record.state}: {printable(record.text)}")
    if record.next_step:
        print(f"Next: {printable(record.next_step)}")
    for task in record.tasks:
        if task.artifact is not None:
            print(f"  {task.artifact.parent}")
            break


@guardian_app.command()
@with_options("home", "recipe", "config")
def stop(options: Options, repo: Repo = Path(), json: AsJson = False) -> None:
    """Stop the cycle at work where nothing is lost. `run` or `watch` continues it. One of the queue's is paused there."""
    from ai_forge.antigravity_agent.cycle import CycleStore
    from ai_forge.conductor.job_queue import JobQueue

    workspace = options.workspace()
    cycles = CycleStore(workspace, readable(repo), options.recipe or "repository")
    last = cycles.last()
    if last is not None and last.state == "running" and last.job_id is not None:
        # the queue would go on with a job that was stopped behind its back
        with JobQueue(workspace, options.settings().settings, config=options.config) as queue:
            queue.pause(last.job_id)
        text = f"job {last.job_id} is asked to pause; go on with it: ai-forge jobs resume {last.job_id}"
        show({"stopping": True, "job_id": last.job_id}, text, json)
        return
    asked = cycles.ask_to_stop()
    text = "asked to stop: the step in hand is finished and saved" if asked else "no cycle is at work"
    show({"stopping": asked}, text, json)


@guardian_app.command()
@with_options()
def watch(
    options: Options,
    repo: Repo = Path(),
    once: Annotated[bool, typer.Option("--once", help="Look once, as a timer would start it, and end.")] = False,
) -> None:
    """Look on a schedule and on change, and run what is due. The handbook's cycle too, where there is an agent folder."""
    from ai_forge.antigravity_agent.repo_guardian import RepoGuardian
    from ai_forge.antigravity_agent.watch import Following, Watch
    from ai_forge.cancel import cancelled_by_interrupt
    from ai_forge.cli.display import Display
    from ai_forge.data_pipeline.handbook.agent_folder import AGENT_FOLDERS

    projects = [project_of(options, repo)]
    has_rules = any((readable(repo) / name / "rules").is_dir() for name in AGENT_FOLDERS)
    if options.recipe is None and has_rules:
        projects.append(project_of(replace(options, recipe="handbook", name=None), repo))
    with Display() as display, cancelled_by_interrupt(lambda: warn(STOPPING)) as token:

        def guardian(project: ProjectConfig) -> RepoGuardian:
            return RepoGuardian(project, emit=display, cancel=Following(token))

        watching = Watch([partial(guardian, project) for project in projects], display, token)
        if once:
            watching.look()
        else:
            watching.run()


@guardian_app.command("install-hook")
@with_options("home", "recipe")
def install_hook(
    options: Options,
    repo: Repo = Path(),
    remove: Annotated[
        bool, typer.Option("--remove", help="Take it away; hooks of yours come back as they were.")
    ] = False,
    print_it: Annotated[bool, typer.Option("--print", help="Print the hook instead of installing it.")] = False,
    json: AsJson = False,
) -> None:
    """A git hook that sends the watch a note. After commits, merges, rebases and switches. It keeps hooks of yours."""
    from ai_forge.antigravity_agent.cycle import CycleStore
    from ai_forge.antigravity_agent.hooks import install_hooks, note_script, remove_hooks
    from ai_forge.antigravity_agent.watch import NOTE

    root = readable(repo).resolve()
    note = CycleStore(options.workspace(), root, options.recipe or "repository").folder / NOTE
    if print_it:
        print(note_script(note), end="")
        return
    changed = [str(path) for path in (remove_hooks(root) if remove else install_hooks(root, note))]
    show({"changed": changed}, "\n".join(changed) or "nothing to change", json)
