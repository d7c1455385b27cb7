"""A deployed model that can be asked: from the registry alone, without its run and without its repository.

What a version is asked with was recorded when it was deployed: its index, how many documents are shown, the prompt. So it
answers from the code that it was trained on, after the repository has moved, changed or gone, and `changes` says which. The
runtime and the index stay open between questions.

A conversation's earlier turns are seen without their documents. A follow-up ("and where is it called?") is searched for with
the question before it, or it would find nothing of what "it" is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ai_forge.data_pipeline.source.repository import blob_id, git_output
from ai_forge.data_pipeline.text.words import approximate_tokens
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.places import regular_bytes
from ai_forge.prompting.prompt import Message, citations_in, messages_for
from ai_forge.serving.choosing import choose_runtime
from ai_forge.serving.registry import Registry
from ai_forge.workspace import MANIFEST, whole_manifest

if TYPE_CHECKING:
    from ai_forge.config.settings import RuntimeSettings
    from ai_forge.data_pipeline.schemas import Document
    from ai_forge.data_pipeline.search.question_index import QuestionIndex
    from ai_forge.serving.deployment import Deployment, RepositoryRef
    from ai_forge.serving.registry import Activation
    from ai_forge.serving.runtime import Runtime
    from ai_forge.workspace import Workspace

POINTS_BACK = re.compile(r"\b(it|its|that|this|these|those|they|them|their|there|same|one|ones|and|also|else)\b", re.I)
SHORT_QUESTION_WORDS = 4
MOST_COMPARED = 2000  # files that are read to see whether they changed
# a citation of a file without lines: of no use to a reader, and invented where the file was not shown
FILE_CITATION = re.compile(r"\[((?:[\w.-]+/)*[\w-]+\.[A-Za-z]\w{0,9})\]")
# characters of a phrase that counts as repeated, and how often: small models run into such loops under greedy decoding
SHORTEST_LOOP, LONGEST_LOOP, LOOPS = 12, 300, 3


class Reply:
    """An answer on its way: iterate over the pieces once, then read `text`, `cited` and `invented`.

    A phrase that the model repeats without end is noticed, cut off, and `repeated` says so.
    """

    def __init__(self, model: str, documents: Sequence[Document], pieces: Iterator[str]) -> None:
        self.model = model
        self.documents = tuple(documents)
        self.text = ""
        self.repeated = False
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self.text += piece
            yield piece
            if loop := loop_at_end(self.text):
                self.text = self.text[: len(self.text) - (LOOPS - 1) * loop]
                self.repeated = True
                return

    @property
    def cited(self) -> list[Document]:
        """The shown documents that the answer cites."""
        named = citations_in(self.text)
        return [document for document in self.documents if document.citation in named]

    @property
    def invented(self) -> list[str]:
        """Citations of the answer that name nothing it was shown: lines of code, or whole files."""
        shown = {document.citation for document in self.documents}
        files = {citation.rpartition(":")[0] for citation in shown}
        lines = [citation for citation in citations_in(self.text) if citation not in shown]
        return lines + [path for path in FILE_CITATION.findall(self.text) if path not in files]


def loop_at_end(text: str) -> int:
    """Length of the phrase with which `text` ends at least `LOOPS` times in a row; 0 where there is none.

    >>> loop_at_end("So: " + "it calls load. " * 3), loop_at_end("it calls load. It calls save.")
    (15, 0)
    """
    for length in range(SHORTEST_LOOP, min(LONGEST_LOOP, len(text) // LOOPS) + 1):
        phrase = text[-length:]
        if text.endswith(phrase * LOOPS) and len(set(phrase)) > 2:  # a ruler of dashes is no loop
            return length
    return 0


class ServedModel:
    """The active version of a model, open to be asked; close it, or use it as a context manager."""

    def __init__(self, deployment: Deployment, activation: Activation, runtime: Runtime) -> None:
        self.deployment = deployment
        self.activation = activation
        self.runtime = runtime
        self._index: QuestionIndex | None = None

    @classmethod
    def open(cls, name: str, workspace: Workspace, settings: RuntimeSettings, *, version: str | None = None) -> Self:
        """The active version of `name`, or another one that is kept, in the runtime that it was deployed to.

        Raises:
            InputError: no such version is deployed, or one of a time when it was not recorded how it is asked.
            PrerequisiteError: its runtime is gone, or its index gone or damaged.
        """
        with Registry(workspace.registry_path) as registry:
            active = registry.active(name)
            wanted = version or (active.version if active is not None else "")
            found = registry.find(name, wanted)
            known = sorted({each.deployment.name for each in registry.versions()})
            kept = [each.deployment.version for each in registry.versions(name)]
        if active is not None and found is None:
            step = "ai-forge models"
            if version is None:  # the row of the active version is gone
                step = "make it again: ai-forge deploy."
            raise InputError(f"{name} has no version {wanted}; it has {', '.join(kept) or 'none'}.", step)
        if active is None or found is None:
            message = f"No model {name} is deployed."
            if known:
                message += f" Deployed are {', '.join(known)}."
            raise InputError(message, "make and deploy one: ai-forge run.")
        asking = found.deployment.asking
        if asking is None:
            raise InputError(
                f"{found.deployment.model} was deployed by an older AI Forge.", "deploy it again: ai-forge deploy."
            )
        if asking.index_folder is not None and not _is_whole(asking.index_folder):
            state = "damaged" if asking.index_folder.is_dir() else "gone"
            raise PrerequisiteError(
                f"The index {asking.index_folder} of {found.deployment.model} is {state}.",
                "make it again: ai-forge deploy.",
            )
        runtime = choose_runtime(settings.model_copy(update={"kind": active.runtime}), workspace)
        return cls(found.deployment, active, runtime)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the runtime."""
        self.runtime.close()

    @property
    def index(self) -> QuestionIndex | None:
        """What its documents are found with; None for a model that is asked without any."""
        from ai_forge.data_pipeline.search.question_index import QuestionIndex

        asking = self.deployment.asking
        if self._index is None and asking is not None and asking.index_folder is not None:
            self._index = QuestionIndex.load(asking.index_folder)
        return self._index

    def documents_for(self, question: str, history: Sequence[Message] = ()) -> tuple[Document, ...]:
        """What is shown with a question."""
        from ai_forge.data_pipeline.search.context import documents_for

        asking = self.deployment.asking
        if self.index is None or asking is None or asking.retrieval is None:
            return ()
        query = searched_for(question, history)
        return documents_for(query, self.index, k=asking.retrieval.k, max_tokens=asking.retrieval.max_tokens)

    def ask(self, question: str, history: Sequence[Message] = (), documents: Sequence[Document] | None = None) -> Reply:
        """Ask with the documents that are found for the question, or with those that are given.

        `history` are the earlier turns of the conversation, user and assistant in turn, the oldest first; as many of the
        newest are seen as fit into the context.
        """
        if documents is None:
            documents = self.documents_for(question, history)
        chat = self.chat_for(question, history, documents)
        return Reply(self.deployment.model, documents, self.runtime.chat(self.deployment.model, chat))

    def chat_for(self, question: str, history: Sequence[Message], documents: Sequence[Document]) -> list[Message]:
        """What the model is sent for a question: the prompt it was trained on, with the earlier turns that fit."""
        if self.index is None:
            messages: list[Message] = [{"role": "user", "content": question}]
        else:
            messages = messages_for(question, documents)
        *before, last = messages
        return [*before, *self._fitting(history, messages), last]

    def _fitting(self, history: Sequence[Message], messages: Sequence[Message]) -> list[Message]:
        """The newest whole exchanges of `history` that leave room for the question and its answer."""
        sampling = self.deployment.sampling
        left = sampling.num_ctx - sampling.num_predict
        left -= sum(_tokens(message) for message in messages)
        kept: list[Message] = []
        # by twos: half an exchange would put two turns of one role in a row, which some chat templates refuse
        for place in range(len(history) - 2, -1, -2):
            exchange = list(history[place : place + 2])
            left -= sum(_tokens(message) for message in exchange)
            if left < 0:
                break
            kept = exchange + kept
        return kept

    def changes(self) -> str | None:
        """How the repository differs from what the model was trained on, in a sentence; None where it does not."""
        asking = self.deployment.asking
        if asking is None or asking.repository is None:
            return None
        told = changes_since(asking.repository)
        if told is None and asking.repository.commit is None and self.index is not None:
            known = {
                entry.path: entry.blob_id for entry in self.index.entries if entry.kind != "commit" and entry.blob_id
            }
            told = files_changed_since(asking.repository, known)
        return told


def _is_whole(index: Path) -> bool:
    """Whether an index is there, and as its manifest says; one that a program saved by itself has none."""
    return index.is_dir() and (not (index / MANIFEST).exists() or whole_manifest(index) is not None)


def _tokens(message: Message) -> int:
    # A template writes some tokens around each turn, and code has more tokens than the estimate in the worst case.
    return 8 + round(1.3 * approximate_tokens(message["content"]))


def searched_for(question: str, history: Sequence[Message]) -> str:
    """What documents are looked up with: the question, and the one before it where it points back.

    >>> before = [{"role": "user", "content": "Where is the registry?"}, {"role": "assistant", "content": "There."}]
    >>> searched_for("and who opens it?", before)
    'Where is the registry? and who opens it?'
    >>> searched_for("Where is the cache folder made?", before)
    'Where is the cache folder made?'
    """
    asked = [message["content"] for message in history if message["role"] == "user"]
    points_back = POINTS_BACK.search(question) or len(question.split()) <= SHORT_QUESTION_WORDS
    if asked and points_back:
        return f"{asked[-1]} {question}"
    return question


def files_changed_since(repository: RepositoryRef, known: Mapping[str, str]) -> str | None:
    """Of a folder without history: how many of the files that a model knows are others now; None where none is.

    Args:
        repository: what the model was trained on.
        known: the hash of each file's content then, by its path.
    """
    changed = 0
    for path, blob in list(known.items())[:MOST_COMPARED]:
        try:
            changed += blob_id(regular_bytes(repository.path / path), blob) != blob
        except OSError:
            changed += 1
    if not changed:
        return None
    return f"{changed} of {len(known)} files that this model knows of {repository.name} have changed or are gone."


def changes_since(repository: RepositoryRef) -> str | None:
    """What happened to a repository since a model was trained on it, in a sentence; None where nothing is known to have."""
    root: Path = repository.path
    if not root.exists():
        return f"{root} is gone; the answers are about the code as it was."
    if repository.commit is None:
        return None
    head = git_output(root, "rev-parse", "--verify", "HEAD")
    if head is None or head.decode("ascii", "replace").strip() == repository.commit:
        return None
    n = git_output(root, "rev-list", "--count", f"{repository.commit}..HEAD")
    commits = "another history" if n is None else f"{int(n)} commits"  # None: the commit is not in it
    return f"{repository.name} has {commits} since this model was trained; it answers about {repository.commit[:12]}."
