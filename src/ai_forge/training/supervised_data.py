"""What a supervised training reads: examples, lessons, gaps and replayed code as token ids, and what is asked meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ai_forge.config import FineTuneConfig
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.schemas.completions import CompletionExample
from ai_forge.errors import InputError
from ai_forge.events import Notice, Sink
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message, messages_for
from ai_forge.training.losses import token_weights
from ai_forge.training.tokens.completions import require_fim, tokenize_completions
from ai_forge.training.tokens.packing import (
    TeacherTokens,
    TokenizedExample,
    by_context,
    code_replay,
    fitting,
    require_both_sides,
    tokenize,
    tokenize_all,
    tokenize_chat,
    with_teacher,
)

Asked = tuple[str, list[Message]]
"""What is asked while training: its title and the chat."""
SAMPLES = 2


@dataclass(frozen=True)
class Lesson:
    """A chat and the answer to be learned; `title` names it where the model is asked while it trains.

    With a `teacher` what it thought at each token is learned besides.
    """

    id: str
    title: str
    prompt: list[Message]
    answer: str
    teacher: TeacherTokens | None = None


@dataclass(frozen=True)
class SupervisedData:
    """What the steps read, what the evaluations read, how many training examples are too long, and what is asked meanwhile."""

    train: list[TokenizedExample]
    held_out: list[TokenizedExample]
    n_too_long: int
    asked: Sequence[Asked] = ()


@dataclass(frozen=True)
class Reading:
    """How a training reads: by its tokenizer and settings; whoever hears `emit` is told what was left out."""

    tokenizer: ChatTokenizer
    config: FineTuneConfig
    base: str
    backend: str
    emit: Sink

    def examples(
        self,
        train_dataset: Sequence[RAFTExample],
        eval_dataset: Sequence[RAFTExample],
        teacher: Mapping[str, TeacherTokens] = MappingProxyType({}),
        completions: Sequence[CompletionExample] = (),
    ) -> SupervisedData:
        """The examples as token ids, with the code to complete and to replay among them, and what a teacher thought of them.

        Raises:
            InputError: nothing fits into `max_seq_len`, or a teacher's tokens are not those of an answer.
        """
        if teacher and self.backend != "torch":
            raise InputError("A teacher's distribution is learned on torch only.", "add --set training.distillation=0.")
        limit = self.config.max_seq_len
        tokenized = [
            with_teacher(tokenize(example, self.tokenizer, self._weigh), teacher.get(example.id))
            for example in train_dataset
        ]
        train, n_too_long = fitting(tokenized, limit)
        held_out, _ = tokenize_all(eval_dataset, self.tokenizer, limit)
        held_out = by_context(held_out)[: self.config.eval_examples]
        advice = "raise training.max_seq_len, lower synthesis.max_context_tokens, or mine more code."
        require_both_sides(len(train), len(held_out), n_too_long, limit, "examples", advice)
        self._warn_of_too_long(n_too_long, "training examples")
        share = self.config.replay_share  # of all that is read, replayed code included
        n_replayed = round(len(train) * share / (1 - share))
        longest = min(limit, self.config.replay_tokens)
        replayed = code_replay(train_dataset, self.tokenizer, n_replayed, longest, self.config.seed)
        gaps: list[TokenizedExample] = []
        if completions:
            fim = require_fim(self.tokenizer, self.base)
            gaps, n_gaps_too_long = tokenize_completions(completions, fim, self.tokenizer, limit)
            self._warn_of_too_long(n_gaps_too_long, "gaps to complete")
        asked = [(e.question, messages_for(e.question, e.shown_documents)) for e in eval_dataset[:SAMPLES]]
        return SupervisedData([*train, *gaps, *replayed], held_out, n_too_long, asked)

    def lessons(self, train: Sequence[Lesson], held_out: Sequence[Lesson], what: str, advice: str) -> SupervisedData:
        """Lessons as token ids; `what` they are called (a plural) and the `advice` are for messages.

        Raises:
            InputError: nothing fits into `max_seq_len`.
        """
        limit = self.config.max_seq_len
        sides = []
        for side in (train, held_out):
            made = [
                with_teacher(tokenize_chat(each.prompt, each.answer, self.tokenizer, each.id), each.teacher)
                for each in side
            ]
            sides.append(fitting(made, limit))
        (kept, n_too_long), (watched, _) = sides
        require_both_sides(len(kept), len(watched), n_too_long, limit, what, advice)
        self._warn_of_too_long(n_too_long, what)
        asked = [(lesson.title, lesson.prompt) for lesson in held_out[:SAMPLES]]
        return SupervisedData(kept, watched[: self.config.eval_examples], n_too_long, asked)

    def _weigh(self, example: RAFTExample) -> tuple[float, ...]:
        starts = self.tokenizer.target_starts(example.target)
        return token_weights(starts, example.target, len(example.final_answer.strip()), self.config)

    def _warn_of_too_long(self, n: int, what: str) -> None:
        if n:
            text = f"{n} {what} are longer than {self.config.max_seq_len} tokens and left out."
            self.emit(Notice("warning", text))
