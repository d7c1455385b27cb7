"""Handbook training: an agent's rules baked into weights, from the Alpaca pairs that `ai-forge handbook` writes.

Same loop, same checkpoints and same result as any training; what differs is the data and, by `--recipe handbook`, the
settings. A pair is asked through `training.prompt_template` without a system message of its own, because the rules are to hold
without one. Only the output is supervised.

The loss over all pairs that are trained on is measured before the first step and after the last, and must have fallen. The
held-out loss is about other rules: no one can guess them, so it says how much else was unlearned, not what was learned.
"""

from collections.abc import Sequence

from ai_forge.config.training import PromptTemplate
from ai_forge.data_pipeline.schemas.instructions import AlpacaPair
from ai_forge.errors import RefusedError
from ai_forge.prompting.prompt import Message
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.record import TrainingResult
from ai_forge.training.supervised_data import Lesson


def chat_of(pair: AlpacaPair, template: PromptTemplate) -> list[Message]:
    """The chat that a pair's output answers.

    >>> chat_of(AlpacaPair(instruction="Mend it.", input="x = 1", output="x = 2"), "alpaca")
    [{'role': 'user', 'content': 'Mend it.\\n\\n### Input:\\nx = 1'}]
    """
    content = pair.user_turn
    if template == "alpaca" and pair.input:
        content = f"{pair.instruction}\n\n### Input:\n{pair.input}"
    return [{"role": "user", "content": content}]


class HandbookTrainer(FineTuneTrainer):
    """`FineTuneTrainer` on instruction pairs."""

    def train_pairs(
        self, train_pairs: Sequence[AlpacaPair], eval_pairs: Sequence[AlpacaPair], baked: Sequence[Lesson] = ()
    ) -> TrainingResult:
        """Train on `train_pairs` and `baked` tasks, watch `eval_pairs`; continues a run that was cut off.

        Raises:
            InputError: no pair fits into `max_seq_len`, or the time budget is too short for a step.
            RefusedError: the loss diverged, or did not fall.
        """
        advice = "raise training.max_seq_len, or hold out more: ai-forge handbook --hold-out 0.2."
        lessons = [*self.lessons(train_pairs), *baked]
        data = self.reading.lessons(lessons, self.lessons(eval_pairs), "pairs", advice)
        result = self._supervised(data, self.config, measured=data.train)
        before, after = result.trained_first_loss, result.trained_last_loss
        if before is None or after is None or not after < before:  # a loss that is no number has not fallen
            raise RefusedError(
                f"The loss on the handbook's pairs did not fall in {result.n_steps} steps: {before} → {after}.",
                f"lower training.learning_rate (now {self.config.learning_rate:g}), or train more steps.",
            )
        return result

    def lessons(self, pairs: Sequence[AlpacaPair]) -> list[Lesson]:
        """The pairs as they are asked and answered."""
        template = self.config.prompt_template
        return [Lesson(pair.id, pair.instruction, chat_of(pair, template), pair.output) for pair in pairs]
