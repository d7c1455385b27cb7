"""What a deployed model was asked, and what would have been right: kept on this machine, for each model.

    asked/<model>/asked.jsonl         questions with the places that were found and cited; the newest 5,000
    asked/<model>/corrections.jsonl   questions with what a person said is right
    asked/<model>/preferences.jsonl   the same as pairs that a second phase of training can read

Answers are not kept, except one that was corrected. Secrets are masked. `runtime.keep_questions` turns the first file off;
the other two are written only where a person asks for it, and nothing but that person removes them.

A line that was torn by a crash is passed over. Two processes that ask at once append whole lines.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.schemas.preference_pairs import ChatMessage, PairOrigin, PreferencePair
from ai_forge.data_pipeline.secrets.masking import scrub_text
from ai_forge.errors import InputError
from ai_forge.json_lines import append_line, lines_of
from ai_forge.prompting.prompt import Message, citations_in
from ai_forge.workspace import Workspace, atomic_write

__all__ = ["AskLog", "Asked", "Correction"]

FOLDER = "asked"
MAX_ASKED = 5000
MAX_ASKED_BYTES = 4_000_000  # beyond this the file is cut to the newest lines when one is added


class Asked(BaseModel):
    """A question with the citations of what was found for it and of what the answer cites."""

    model_config = ConfigDict(frozen=True)

    time: str
    question: str
    found: tuple[str, ...]
    cited: tuple[str, ...]


class Correction(BaseModel):
    """A question whose answer was wrong, what is right, and the files that may answer it."""

    model_config = ConfigDict(frozen=True)

    time: str
    question: str
    wrong: str
    right: str
    files: tuple[str, ...]


Row = TypeVar("Row", bound=BaseModel)


class AskLog:
    """The three files of one model."""

    def __init__(self, workspace: Workspace, model: str) -> None:
        self.folder = workspace.root / FOLDER / model

    def record(self, question: str, found: Sequence[Document], cited: Sequence[Document]) -> None:
        """Keep a question."""
        asked = Asked(
            time=_now(),
            question=scrub_text(question),
            found=tuple(document.citation for document in found),
            cited=tuple(document.citation for document in cited),
        )
        path = self.folder / "asked.jsonl"
        _append(path, asked)
        if path.stat().st_size > MAX_ASKED_BYTES:
            kept = self.asked()[-MAX_ASKED // 2 :]
            atomic_write(path, "".join(f"{row.model_dump_json()}\n" for row in kept))

    def correct(
        self, question: str, prompt: Sequence[Message], found: Sequence[Document], wrong: str, right: str
    ) -> Correction:
        """Keep what is right in place of the answer `wrong` to `prompt`, in which `found` was shown.

        Raises:
            InputError: nothing is said, or what the model said.
        """
        right, wrong = scrub_text(right).strip(), scrub_text(wrong).strip()
        if not right or right == wrong:
            said = "holds nothing" if not right else "is what the model answered"
            raise InputError(f"--wrong {said}: {right!r}.", "say what is right, in your own words.")
        correction = Correction(
            time=_now(), question=scrub_text(question), wrong=wrong, right=right, files=_files(right, found)
        )
        pair = PreferencePair(
            prompt=tuple(ChatMessage.model_validate(message) for message in prompt),
            chosen=right,
            rejected=wrong or "I do not know.",  # a model that said nothing is still to learn what is right
            kind="correction",
            origin=PairOrigin(path=correction.files[0] if correction.files else ""),
        )
        _append(self.folder / "corrections.jsonl", correction)
        _append(self.preferences, pair)
        return correction

    @property
    def preferences(self) -> Path:
        """The file that `training.preferences` may name."""
        return self.folder / "preferences.jsonl"

    def asked(self) -> list[Asked]:
        """What was asked, the oldest first."""
        return _rows(self.folder / "asked.jsonl", Asked)

    def corrections(self) -> list[Correction]:
        """What was corrected, the oldest first."""
        return _rows(self.folder / "corrections.jsonl", Correction)


def _files(right: str, found: Sequence[Document]) -> tuple[str, ...]:
    """The files that a text cites, or names of those that were shown; where it names none, all that were shown."""
    cited = [citation.rpartition(":")[0] for citation in citations_in(right) if not citation.startswith("commit:")]
    paths = [document.path for document in found if document.path]
    named = [path for path in paths if path in right]
    return tuple(dict.fromkeys([*cited, *named])) or tuple(dict.fromkeys(paths))


def _append(path: Path, row: BaseModel) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, row.model_dump(mode="json"))


def _rows(path: Path, kind: type[Row]) -> list[Row]:
    if not path.is_file():
        return []
    rows = []
    for _, line in lines_of(path.read_bytes().decode("utf-8", "replace")):
        try:
            rows.append(kind.model_validate_json(line))
        except ValidationError:
            continue
    return rows


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
