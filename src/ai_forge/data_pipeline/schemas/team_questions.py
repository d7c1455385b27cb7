"""`TeamQuestion`: what somebody of a team asked about its repository, and by what an answer is known to be right."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

MAX_QUESTIONS = 1000
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=1000)]
Term = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


class TeamQuestion(BaseModel):
    """A question of the team's own. A place answers it that lies in one of `files` or in the definition of one of `symbols`.

    A file is written as git writes it, relative to the repository; one that ends with a slash is a folder with all below it.
    `must` are words that a right answer holds, `must_not` words that only a wrong one does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Text
    files: tuple[Name, ...] = Field(default=(), max_length=50)
    symbols: tuple[Name, ...] = Field(default=(), max_length=50)
    answer: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)] | None = None
    must: tuple[Term, ...] = Field(default=(), max_length=20)
    must_not: tuple[Term, ...] = Field(default=(), max_length=20)

    @property
    def origin(self) -> Literal["people"]:
        """Whose question it is; the pipeline's own are of the `pipeline`."""
        return "people"

    @field_validator("files")
    @classmethod
    def _inside_the_repository(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for file in files:
            if "\\" in file:
                raise ValueError(f"{file!r} has backslashes: write {file.replace(chr(92), '/')!r}")
            if file.startswith(("/", "~")) or re.match(r"[A-Za-z]:", file) or ".." in file.split("/"):
                raise ValueError(f"{file!r} is not inside the repository: write its path from the repository's root")
        return tuple(file.removeprefix("./") for file in files)

    @model_validator(mode="after")
    def _says_what_answers_it(self) -> "TeamQuestion":
        if not self.files and not self.symbols:
            raise ValueError("it names neither files nor symbols that answer it")
        return self

    def is_in_files(self, path: str) -> bool:
        """Whether `path` is one of the files, or lies in one of the folders.

        >>> q = TeamQuestion(question="Where are the docs?", files=("docs/", "README.md"))
        >>> q.is_in_files("docs/a/b.md"), q.is_in_files("README.md"), q.is_in_files("docs.md")
        (True, True, False)
        """
        return any(is_below(path, file) for file in self.files)


def is_below(path: str, file: str) -> bool:
    """Whether `path` is `file`, or lies in it where that is a folder with a slash at its end."""
    return path == file or (file.endswith("/") and path.startswith(file))
