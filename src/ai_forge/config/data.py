"""Settings of the data pipeline: one frozen model per concern, the only place where their defaults live."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["TEACHER", "MinerSettings", "QuestionFamily", "SplitSettings", "SynthesisSettings", "ValidatorSettings"]

# no `@` and no `?` in the address: it stands in keys and reports, where a name, a password or a token must not
TEACHER = re.compile(r"ollama:(?P<ollama>[^\s#]+)|(?P<url>https?://[^\s#@?]+)#(?P<model>\S+)")
"""A model in Ollama, or the address of an OpenAI-compatible server and a model of it."""

QuestionFamily = Literal[
    "purpose", "parameters", "exceptions", "dependencies", "edge_case", "pattern", "extend", "usage", "returns", "members",
    "location", "why", "fits_together", "callers", "change_impact", "fill_in_the_middle", "write_docstring", "write_test",
]  # fmt: skip
"""What can be asked about a block; the functions that ask are in `data_pipeline/examples/families`."""


class _Settings(BaseModel):
    # frozen: a run's id is a hash of them. An unknown key is an error: a misspelt one would quietly be the default
    model_config = ConfigDict(frozen=True, extra="forbid")


class MinerSettings(_Settings):
    """What is read from a repository and which blocks may become the subject of a question."""

    min_tokens: int = Field(default=20, ge=1, description="shortest subject, approximate tokens")
    max_tokens: int = Field(
        default=2048, ge=32, description="longest block, approximate tokens; longer ones are cut between statements"
    )
    max_file_bytes: int = Field(default=1_000_000, ge=1_000, description="larger files are skipped, bytes")
    require_docstring: bool = Field(
        default=True,
        description="only documented blocks become subjects; turn off for a repository with few docstrings: its blocks "
        "then get every question but those about purpose",
    )
    include_private: bool = Field(default=True, description="private definitions (`_name`, `#name`) may be subjects")
    include_tests: bool = Field(default=False, description="test code may be the subject (it is always a document)")
    languages: tuple[str, ...] = Field(default=(), description="mine these only; empty means all that are known")
    secrets: Literal["mask", "drop"] = Field(
        default="mask",
        description="mask: a secret's value becomes the placeholder, and the block goes if it is not sound after that; "
        "drop: every block with a secret goes",
    )
    # it stands inside string literals of every language, so nothing that could end or escape one
    secret_placeholder: str = Field(
        default="<masked>",
        pattern=r"^[A-Za-z0-9_<>\[\]*.-]{1,40}$",
        description="what stands for a secret's value; letters, digits and _ < > [ ] * . - only",
    )
    allow_licence: tuple[str, ...] = Field(
        default=(),
        description="licences (SPDX names, `*` for any characters) that files may stand under beside the repository's own; "
        "empty means all but copyleft ones",
    )
    near_duplicate: float = Field(
        default=0.95,
        ge=0.5,
        le=1,
        description="Jaccard similarity to an earlier subject from which a block is no subject, 0–1",
    )


class SplitSettings(_Settings):
    """How files are dealt to train, valid and test before any example is made."""

    by: Literal["auto", "date", "file"] = Field(
        default="auto",
        description="date holds out what was written last, file what is drawn; auto: by date where the history can say it",
    )
    train: float = Field(default=0.7, gt=0, lt=1, description="share of the subjects, 0–1")
    valid: float = Field(default=0.1, gt=0, lt=1, description="share of the subjects, 0–1")
    test: float = Field(default=0.2, gt=0, lt=1, description="share of the subjects, 0–1")
    near_duplicate: float = Field(
        default=0.8,
        ge=0.5,
        le=1,
        description="Jaccard similarity of 5-token shingles from which two blocks are one, 0–1",
    )
    seed: int = Field(default=0, ge=0, description="another seed draws other files")

    @model_validator(mode="after")
    def _shares_add_up(self) -> "SplitSettings":
        if abs(self.train + self.valid + self.test - 1) > 1e-6:  # 0.7 + 0.1 + 0.2 is not quite 1 in binary
            raise ValueError(f"train + valid + test must be 1, got {self.train + self.valid + self.test:g}")
        return self


class SynthesisSettings(_Settings):
    """Which questions are made of the blocks and what is shown with them."""

    families: tuple[QuestionFamily, ...] = Field(
        default=(), description="ask these only; empty means all. A small model learns the short answers best"
    )
    max_examples: int = Field(default=5000, ge=1, description="at most this many examples in all")
    max_per_block: int = Field(default=8, ge=1, le=50, description="at most this many examples about one block")
    max_context_tokens: int = Field(
        default=900,
        ge=100,
        le=6000,
        description="all shown documents together, approximate tokens; distractors go first",
    )
    questions_per_context: int = Field(
        default=6, ge=1, le=64, description="at most this many questions about the same documents, which train as one"
    )
    no_oracle_share: float = Field(
        default=0.1, ge=0, le=0.5, description="share of examples whose context lacks the answer, 0–1"
    )
    easy_share: float = Field(default=0.25, ge=0, le=1, description="share with no distractor, 0–1")
    hard_share: float = Field(default=0.25, ge=0, le=1, description="share with three or more distractors, 0–1")
    embedder: str = Field(default="none", description="dense side of the retriever that picks the distractors")
    seed: int = Field(default=0, ge=0, description="another seed words and mixes the examples differently")
    teacher: str = Field(
        default="",
        description="a model that rewords questions and answers: ollama:NAME, or URL#MODEL of an OpenAI-compatible "
        "server; empty means none",
    )
    teacher_batch: int = Field(
        default=4, ge=1, le=32, description="examples about the same code in one request, at most"
    )
    teacher_concurrency: int = Field(default=2, ge=1, le=64, description="requests to the teacher at a time")
    teacher_timeout_s: float = Field(default=300.0, gt=0, le=3600, description="longest wait for one answer, seconds")

    natural_questions: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="at most this many questions as people type them, written and answered by a model that sees more than the "
        "trained one will; 0 means none. Minutes on a GPU, hours on a CPU",
    )
    natural_writer: str = Field(
        default="",
        description="the base that writes them; empty means the one that is trained, whose words suit it best",
    )
    baked_tasks: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="recipe handbook: at most this many ordinary tasks, answered by the writer with the rules before it and learned "
        "without them; 0 means none. Minutes on a GPU, hours on a CPU",
    )
    natural_samples: int = Field(default=4, ge=1, le=32, description="answers drawn for each question; checks keep one")
    natural_share: float = Field(
        default=0.75, gt=0, le=1, description="share of natural questions among the examples, where there are any, 0–1"
    )
    completion_share: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="share of code to complete (fill-in-the-middle) among all that is trained on, for bases that have the tokens; "
        "0 means none",
    )

    @field_validator("teacher")
    @classmethod
    def _names_a_teacher(cls, value: str) -> str:
        if value and not TEACHER.fullmatch(value):
            raise ValueError("a teacher is ollama:NAME or URL#MODEL, without a name or key in the URL")
        return value

    @model_validator(mode="after")
    def _shares_fit(self) -> "SynthesisSettings":
        if self.easy_share + self.hard_share > 1:
            raise ValueError(f"easy_share + hard_share must be at most 1, got {self.easy_share + self.hard_share:g}")
        return self


class ValidatorSettings(_Settings):
    """Thresholds below (or above) which an example is dropped. All scores are 0–1."""

    min_quality: float = Field(default=0.6, ge=0, le=1, description="overall score of an example, at least")
    min_oracle_relevance: float = Field(default=0.75, ge=0, le=1, description="mean over the dataset, at least")
    max_distractor_relevance: float = Field(
        default=0.3, ge=0, le=1, description="share of the answer that a distractor holds too, at most"
    )
    near_duplicate: float = Field(
        default=0.9, ge=0.5, le=1, description="Jaccard similarity from which two examples are one, 0–1"
    )
