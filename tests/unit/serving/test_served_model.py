"""A deployed model is asked from the registry alone: without its run, its repository, or the code of today."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ai_forge.config import Settings
from ai_forge.errors import InputError, PrerequisiteError, TransientError
from ai_forge.pipeline import actions
from ai_forge.prompting.prompt import Message
from ai_forge.serving import Activation, AskSettings, Deployment, RepositoryRef, Sampling
from ai_forge.serving.registry import Registry
from ai_forge.serving.served_model import (
    Reply,
    ServedModel,
    changes_since,
    files_changed_since,
    loop_at_end,
    searched_for,
)
from ai_forge.workspace import Workspace
from cli_runs import TinyRun, copy_of, runner_of
from tiny_training import document

QUESTION = "What does `insort_right` do?"
SHOWN = (document("load"), document("parse"))


def turns(*texts: str) -> list[Message]:
    """A conversation: user and assistant in turn."""
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(texts)]


class Spoken:
    """A runtime that says what it was given, remembers what it was asked, and may break off."""

    def __init__(self, *pieces: str, error: Exception | None = None) -> None:
        self.pieces = pieces
        self.error = error
        self.asked: list[tuple[str, list[Message]]] = []
        self.n_spoken = 0
        self.is_open = True

    def chat(self, model: str, messages: Sequence[Message]) -> Iterator[str]:
        self.asked.append((model, list(messages)))
        for piece in self.pieces:
            self.n_spoken += 1
            yield piece
        if self.error:
            raise self.error

    def close(self) -> None:
        self.is_open = False


def served(runtime: Spoken, n_ctx: int = 4096, n_predict: int = 256) -> ServedModel:
    """A handbook's model: it is shown no documents but those that a test gives."""
    deployment = Deployment(
        name="demo",
        version="r1",
        gguf_path=Path("/models/x.gguf"),
        gguf_sha256="ab" * 32,
        chat_template="{{ messages }}",
        stop=(),
        system_prompt="",
        sampling=Sampling(n_ctx, n_predict, 0.0, 40, 0.9),
        base="base",
        created_at="2026-01-01T00:00:00+00:00",
        asking=AskSettings(kind="handbook"),
    )
    activation = Activation(1, "demo", "r1", "embedded", "deployed", None, "2026-01-01T00:00:00+00:00")
    return ServedModel(deployment, activation, runtime)  # type: ignore[arg-type]


def answered(*pieces: str) -> Reply:
    reply = Reply("demo:r1", SHOWN, iter(pieces))
    assert "".join(reply)
    return reply


# -- what an answer cites -------------------------------------------------------------------------------------------


def test_a_reply_tells_what_it_cites_and_what_it_invented() -> None:
    reply = answered("See [src/lo", "ad.py:1-2], not [src/load.py:1-3] nor [src/other.py:7-9]", "; [src/load.py:1-2].")
    assert [shown.citation for shown in reply.cited] == ["src/load.py:1-2"]
    assert reply.invented == ["src/load.py:1-3", "src/other.py:7-9"]


@pytest.mark.parametrize(
    ("text", "invented"),
    [
        ("It stands in [src/store.py].", ["src/store.py"]),
        ("It stands in [README.md], see [src/load.py:1-2].", ["README.md"]),
        ("It stands in [src/load.py].", []),  # a file that was shown
        ("Call it with values[0] and [x.y()].", []),
        ("As in [commit:0123456789ab].", ["commit:0123456789ab"]),
    ],
)
def test_a_citation_of_a_file_that_was_not_shown_is_flagged(text: str, invented: list[str]) -> None:
    assert answered(text).invented == invented


def test_a_reply_that_cites_nothing() -> None:
    reply = answered("I do not know.")
    assert (reply.text, reply.cited, reply.invented, reply.repeated) == ("I do not know.", [], [], False)


# -- repetition -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "phrase"),
    [("So: ", "it calls load. "), ("", "def load(value):\n    return value\n"), ("Ja. ", "Die Datei wird gelesen. ")],
)
def test_a_phrase_without_end_is_cut_and_said(start: str, phrase: str) -> None:
    runtime = Spoken(start, *[letter for _ in range(50) for letter in phrase])
    reply = served(runtime).ask("What?")
    assert len("".join(reply)) < len(start) + 4 * len(phrase)
    assert reply.repeated
    assert (start + phrase).startswith(reply.text)
    assert len(reply.text) >= len(start + phrase) - 2  # the loop may be seen a letter or two before the phrase ends
    assert runtime.n_spoken < len(start) + 4 * len(phrase), "the runtime is not asked on"


@pytest.mark.parametrize(
    "text",
    [
        "It calls load. It calls save. It calls load.",
        "-" * 200,
        "| a | b |\n" + "|---|---|\n" * 2,
        "one of two, two of three, three of four, four of five",
        "",
    ],
)
def test_what_is_no_loop_is_left_as_it_is(text: str) -> None:
    assert loop_at_end(text) == 0
    reply = Reply("demo:r1", (), iter(text))
    assert "".join(reply) == text == reply.text
    assert not reply.repeated


# -- a conversation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "searched"),
    [
        ("and who calls it?", "How is a file read? and who calls it?"),
        ("Why?", "How is a file read? Why?"),
        ("Which errors does that raise when the disk is full?", "How is a file read? Which errors does that raise "
                                                                "when the disk is full?"),
        ("Where is the cache folder made?", "Where is the cache folder made?"),
    ],
)  # fmt: skip
def test_a_follow_up_is_searched_for_with_the_question_before(question: str, searched: str) -> None:
    before = turns("What is a run?", "A value.", "How is a file read?", "By `load`.")
    assert searched_for(question, before) == searched
    assert searched_for(question, ()) == question


def test_earlier_turns_are_seen_in_order_and_the_oldest_are_left_out_first() -> None:
    runtime = Spoken("Yes.")
    history = turns("What is a run?", "A value.", "How is a file read?", "By `load`.")
    list(served(runtime).ask("Why?", history))
    assert runtime.asked == [("demo:r1", [*history, {"role": "user", "content": "Why?"}])]
    long = turns("What is a run?", "word " * 300, "How is a file read?", "By `load`.")
    list(served(runtime, n_ctx=300, n_predict=100).ask("Why?", long))
    assert runtime.asked[-1][1] == [*long[2:], {"role": "user", "content": "Why?"}]


def test_a_broken_answer_keeps_its_text_and_the_runtime_stays_open() -> None:
    runtime = Spoken("See [src/load.py:1-2]", error=TransientError("gone"))
    with served(runtime) as model:
        reply = model.ask("What?", documents=SHOWN)
        with pytest.raises(TransientError):
            list(reply)
        assert reply.text == "See [src/load.py:1-2]"
        assert [shown.citation for shown in reply.cited] == ["src/load.py:1-2"]
        assert runtime.is_open
    assert not runtime.is_open


# -- the registry alone ---------------------------------------------------------------------------------------------


def opened(home: Path, name: str = "repo") -> ServedModel:
    return ServedModel.open(name, Workspace.open(home), Settings().runtime)


def asked(home: Path, name: str = "repo") -> tuple[str, list[str], str | None]:
    """The answer, what was shown for it, and what has changed since."""
    with opened(home, name) as model:
        reply = model.ask(QUESTION)
        list(reply)
        return reply.text, [shown.citation for shown in reply.documents], model.changes()


def test_a_model_answers_from_what_it_was_trained_on_whatever_became_of_its_repository(
    finished: TinyRun, tmp_path: Path
) -> None:
    copy = copy_of(finished, tmp_path)
    git = ["git", "-C", str(copy.repo), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "Lists"]):
        subprocess.run([*git, *words], check=True)
    actions.deploy(runner_of(copy, name="mine"))
    answer, shown, changes = asked(copy.home, "mine")
    assert any(citation.startswith("bisect.py") for citation in shown)
    assert changes is None

    (copy.repo / "bisect.py").write_text("def nothing():\n    return None\n")
    for message in ("Nothing is left", "Still nothing"):
        subprocess.run([*git, "commit", "-qam", message, "--allow-empty"], check=True)
    again = asked(copy.home, "mine")
    assert again[:2] == (answer, shown)
    assert again[2] is not None
    assert again[2].startswith("repo has 2 commits since this model was trained; it answers about ")

    shutil.rmtree(copy.repo / ".git")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-qm", "Begun anew", "--allow-empty"], check=True)
    assert "repo has another history since" in str(asked(copy.home, "mine")[2])

    moved = copy.repo.rename(tmp_path / "elsewhere")
    shutil.rmtree(copy.home / "cache")  # nor does it need what its run made, but for the file that is served
    again = asked(copy.home, "mine")
    assert again[:2] == (answer, shown)
    assert again[2] == f"{copy.repo} is gone; the answers are about the code as it was."
    shutil.rmtree(moved)
    assert asked(copy.home, "mine") == again


def test_runtime_and_index_stay_open_between_questions(finished: TinyRun) -> None:
    with opened(finished.home) as model:
        index, runtime = model.index, model.runtime
        first = "".join(model.ask(QUESTION))
        assert "".join(model.ask(QUESTION)) == first
        assert model.index is index
        assert model.runtime is runtime


def test_a_model_that_cannot_be_opened_says_why(finished: TinyRun, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    with pytest.raises(InputError, match=r"No model other is deployed\. Deployed are repo\. Next: make and deploy one"):
        opened(copy.home, "other")
    with pytest.raises(InputError, match=r"No model other is deployed\. Next: "):
        opened(tmp_path / "new", "other")
    with opened(finished.home) as model:
        served_index = model.deployment.asking.index_folder if model.deployment.asking else None
        old = model.deployment
    assert served_index is not None
    with Registry(Workspace.open(tmp_path / "old").registry_path) as registry:
        for version, asking in (("r1", None), ("r2", AskSettings(index_folder=tmp_path / "no-index"))):
            made = Deployment(**{**vars(old), "version": version, "asking": asking})
            registry.register(made)
    for version, error, told in (
        ("r1", InputError, r"repo:r1 was deployed by an older AI Forge\. Next: deploy it again: ai-forge deploy"),
        ("r2", PrerequisiteError, r"The index .*no-index of repo:r2 is gone\. Next: make it again"),
    ):
        with Registry(Workspace.open(tmp_path / "old").registry_path) as registry:
            registry.activate("repo", version, "embedded")
        with pytest.raises(error, match=told):
            opened(tmp_path / "old")


def test_a_repository_of_which_nothing_is_known_has_not_changed(tmp_path: Path) -> None:
    assert changes_since(RepositoryRef(path=tmp_path, name="x")) is None
    assert changes_since(RepositoryRef(path=tmp_path, name="x", commit="ab" * 20)) is None


def test_a_folder_without_history_tells_which_of_its_files_are_others_now(finished: TinyRun, tmp_path: Path) -> None:
    with opened(finished.home) as model:
        assert model.changes() is None
    here = RepositoryRef(path=tmp_path, name="tools")
    (tmp_path / "a.py").write_bytes(b"")
    (tmp_path / "b.py").write_bytes(b"other")
    known = dict.fromkeys(("a.py", "b.py", "gone.py"), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")  # of nothing
    told = files_changed_since(here, known)
    assert told == "2 of 3 files that this model knows of tools have changed or are gone."
    assert files_changed_since(here, {"a.py": known["a.py"]}) is None
