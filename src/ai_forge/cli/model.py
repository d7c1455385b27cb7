"""`ai-forge ask`, `chat`, `search` and `rollback`: the deployed model. Answers go to stdout as they come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.options import AsJson, Options, Repo, with_options
from ai_forge.cli.output import is_json, print_json, show, stderr, table, warn

if TYPE_CHECKING:
    from ai_forge.prompting.prompt import Message
    from ai_forge.serving.ask_log import Correction
    from ai_forge.serving.served_model import Reply, ServedModel

Question = Annotated[str, typer.Argument(help="A question about the repository.")]
OfRepo = Annotated[Path, typer.Option("--repo", help="The repository, as it was called when it was trained.")]
Model = Annotated[str | None, typer.Option("--model", help="The model's name, instead of its repository.")]
OF_DEPLOYED = ("set", "config", "home", "recipe")  # flags of the commands for a deployed model


def open_model(options: Options, repo: Path, model: str | None) -> ServedModel:
    """The deployed model that was asked for."""
    from ai_forge.pipeline.identity import known_model_of
    from ai_forge.serving.served_model import ServedModel

    runtime = options.settings().settings.runtime
    workspace = options.workspace()
    name = model or known_model_of(repo, options.recipe, workspace)
    return ServedModel.open(name, workspace, runtime)


@with_options(*OF_DEPLOYED)
def ask(
    options: Options,
    question: Question,
    repo: OfRepo = Path(),
    model: Model = None,
    wrong: Annotated[
        str | None,
        typer.Option("--wrong", help="The answer is wrong: what is right. Kept as a question and as a pair."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Ask the deployed model about the repository. Prints the places it found, the answer and the code it cites."""
    with open_model(options, repo, model) as served:
        reply = _asked(served, question, quiet=is_json(json))
        _keep(options, served, question, reply)
        kept = None if wrong is None else _correct(options, served, question, reply, wrong)
        changes = served.changes()
    if is_json(json):
        value: dict[str, object] = {
            "question": question,
            "answer": reply.text,
            "cited": [document.citation for document in reply.cited],
            "invented": reply.invented,
            "found": [document.citation for document in reply.documents],
            "repeated": reply.repeated,
            "model": reply.model,
            "changed_since": changes,
        }
        if kept is not None:
            value["correction"] = kept.model_dump(exclude={"wrong"})
        print_json(value)
        return
    print_citations(reply)
    if kept is not None:
        print(f"Kept for {', '.join(kept.files) or 'no file'}. `ai-forge questions suggest` offers it as a question.")
    if changes:
        warn(f"  {changes}")


def _keep(options: Options, served: ServedModel, question: str, reply: Reply) -> None:
    """Note what was asked, where that is wanted."""
    from ai_forge.serving.ask_log import AskLog

    if options.settings().settings.runtime.keep_questions:
        try:
            AskLog(options.workspace(), served.deployment.name).record(question, reply.documents, reply.cited)
        except OSError as error:  # the answer is there: a full disk is no reason to end with an error
            warn(f"  The question could not be kept: {error.strerror}.")


def _correct(options: Options, served: ServedModel, question: str, reply: Reply, right: str) -> Correction:
    """Keep what is right in place of an answer."""
    from ai_forge.serving.ask_log import AskLog

    log = AskLog(options.workspace(), served.deployment.name)
    return log.correct(question, served.chat_for(question, (), reply.documents), reply.documents, reply.text, right)


def _asked(served: ServedModel, question: str, *, quiet: bool, history: list[Message] | None = None) -> Reply:
    """Ask, printing what was found and the answer as it comes unless `quiet`."""
    documents = served.documents_for(question, history or ())
    if documents and not quiet:
        # on stderr and before the answer, which may take seconds to begin: where it will come from can be read meanwhile
        places = ", ".join(document.citation for document in documents)
        stderr().print(f"[dim]found {places}[/dim]", soft_wrap=True)
    reply = served.ask(question, history or (), documents)
    for piece in reply:  # has to be read to its end even if it is not shown: the text and its citations come of that
        if not quiet:
            print(piece, end="", flush=True)
    if not quiet:
        print()
        if reply.repeated:
            warn("  The model began to repeat itself and was stopped.")
    return reply


@with_options(*OF_DEPLOYED)
def chat(options: Options, repo: OfRepo = Path(), model: Model = None) -> None:
    """A conversation with the deployed model. Earlier turns are seen. An empty line ends; Ctrl-C stops an answer."""
    if sys.stdin is not None and sys.stdin.isatty():
        import readline  # noqa: F401 (gives `input` line editing and history)
    with open_model(options, repo, model) as served:
        stderr().print(f"[dim]{served.deployment.model} ({served.activation.runtime}); an empty line ends[/dim]")
        if changes := served.changes():
            warn(changes)
        history: list[Message] = []
        while question := _typed():
            try:
                reply = _asked(served, question, quiet=False, history=history)
            except KeyboardInterrupt:  # half an answer is no turn: the model is not shown it again
                print("\n(stopped)")
                continue
            print_citations(reply)
            _keep(options, served, question, reply)
            history += [{"role": "user", "content": question}, {"role": "assistant", "content": reply.text}]


def _typed() -> str:
    """The next question; nothing at the end of the input."""
    try:
        return input("> ").strip()
    except (EOFError, RuntimeError):  # the end, or no standard input at all
        return ""
    except KeyboardInterrupt:
        print()
        return ""


@with_options("set", "config", "home")
def search(
    options: Options,
    question: Question,
    repo: OfRepo = Path(),
    model: Model = None,
    k: Annotated[int, typer.Option("-k", min=1, max=200, help="How many places.")] = 10,
    json: AsJson = False,
) -> None:
    """The places that would be shown with a question, and why. Of the repository as it is, or of a deployed --model."""
    if model is not None:
        with open_model(options, repo, model) as served:
            found = []
            if served.index is not None:  # a handbook's model is asked without documents
                found = served.index.search(question, k)
    else:
        with options.running(repo) as (runner, _):
            runner.run_until("index")
            found = runner.opened.index(runner.outputs()).search(question, k)
    values = [one.row() | {"why": one.why} for one in found]
    rows = []
    for one in found:
        why = ", ".join(f"{ranking} {score:.2f}" for ranking, score in one.why.items())
        rows.append([f"{one.score:.2f}", one.entry.citation, one.kind, one.name, why])
    show(values, lambda: table(("score", "place", "kind", "name", "why"), rows, right=("score",)), json)


@with_options("set", "config", "home", "recipe", "name")
def rollback(options: Options, repo: Repo = Path(), json: AsJson = False) -> None:
    """Return to the version that the active one replaced."""
    from ai_forge.pipeline import actions
    from ai_forge.pipeline.identity import known_model_of

    workspace = options.workspace()
    model = options.name or known_model_of(repo, options.recipe, workspace)
    activation = actions.rollback(model, options.settings().settings.runtime, workspace)
    name = f"{model}:{activation.version}"
    show({"model": name, "runtime": activation.runtime}, f"{name} is active again ({activation.runtime})", json)


def print_answer(question: str, reply: Reply) -> None:
    """A question and its answer with what it cites."""
    print(f"\n> {question}\n{reply.text.strip()}")
    print_citations(reply)


def print_citations(reply: Reply) -> None:
    """The cited blocks with file and lines, and what was cited without being shown."""
    for document in reply.cited:
        print(f"  {document.citation}  {document.text.strip().splitlines()[0][:90]}")
    for citation in reply.invented:
        warn(f"  {citation} was cited but not shown to the model: do not trust it.")
    if reply.documents and not reply.cited and not reply.invented:
        warn("  The answer cites nothing.")
