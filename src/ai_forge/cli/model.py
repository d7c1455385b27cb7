"""`ai-forge ask`, `chat` and `rollback`: the deployed model. Answers go to stdout as they come."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ai_forge.cli.console import stderr
from ai_forge.cli.options import AsJson, Choices, Repo, show, taking
from ai_forge.pipeline import serving
from ai_forge.pipeline.serving import Reply

Question = Annotated[str, typer.Argument(help="A question about the repository.")]
OfRepo = Annotated[Path, typer.Option("--repo", help="The repository.")]
OF_DEPLOYED = ("set", "config", "home", "recipe")
"""Flags of the commands for a deployed model."""


@taking(*OF_DEPLOYED)
def ask(choices: Choices, question: Question, repo: OfRepo = Path(), json: AsJson = False) -> None:
    """Ask the deployed model about the repository; prints the answer and the code it cites."""
    pipeline = choices.pipeline(repo)
    reply = serving.ask(pipeline, question)
    for piece in reply:
        if not json:
            print(piece, end="", flush=True)
    if json:
        cited = [document.citation for document in reply.cited]
        told = {"question": question, "answer": reply.text, "cited": cited, "invented": reply.invented}
        show(told | {"model": reply.model})
        return
    print()
    print_citations(reply)


@taking(*OF_DEPLOYED)
def chat(choices: Choices, repo: OfRepo = Path()) -> None:
    """Ask one question after the other; an empty line ends."""
    pipeline = choices.pipeline(repo)
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            question = ""
        if not question:
            return
        reply = serving.ask(pipeline, question)
        for piece in reply:
            print(piece, end="", flush=True)
        print()
        print_citations(reply)


@taking(*OF_DEPLOYED)
def rollback(choices: Choices, repo: Repo = Path()) -> None:
    """Return to the version that the active one replaced."""
    pipeline = choices.pipeline(repo)
    activation = serving.rollback(pipeline)
    show({"model": f"{pipeline.model_name}:{activation.version}", "runtime": activation.runtime})


def print_answer(question: str, reply: Reply) -> None:
    """A question and its answer with what it cites."""
    print(f"\n> {question}\n{reply.text.strip()}")
    print_citations(reply)


def print_citations(reply: Reply) -> None:
    """The cited blocks with file and lines, and what was cited without being shown."""
    for document in reply.cited:
        print(f"  {document.citation}  {document.text.strip().splitlines()[0][:90]}")
    for citation in reply.invented:
        stderr.print(f"[yellow]  {escape(citation)} was cited but not shown to the model: do not trust it.[/yellow]")
    if reply.documents and not reply.cited and not reply.invented:
        stderr.print("[yellow]  The answer cites nothing.[/yellow]")
