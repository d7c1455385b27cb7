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
from ai_forge.errors import InputError, RefusedError
from ai_forge.events import Notice
from ai_forge.prompting.prompt import Message
from ai_forge.training.forge import SAMPLES, FineTuneTrainer, SupervisedData
from ai_forge.training.record import TrainingResult
from ai_forge.training.tokens.packing import TokenizedExample, tokenize_chat


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

    def train_pairs(self, train_pairs: Sequence[AlpacaPair], eval_pairs: Sequence[AlpacaPair]) -> TrainingResult:
        """Train on `train_pairs`, watch `eval_pairs`; continues a run that was cut off.

        Raises:
            InputError: no pair fits into `max_seq_len`, or the time budget is too short for a step.
            RefusedError: the loss diverged, or did not fall.
        """
        (train, n_too_long), (held_out, _) = self.fitting(train_pairs), self.fitting(eval_pairs)
        if not train or not held_out:
            raise InputError(
                f"{len(train)} training and {len(held_out)} held-out pairs fit into {self.config.max_seq_len} tokens "
                f"({n_too_long} are longer); at least one of each is needed.",
                "raise training.max_seq_len, or hold out more: ai-forge handbook --hold-out 0.2.",
            )
        if n_too_long:
            text = f"{n_too_long} pairs are longer than {self.config.max_seq_len} tokens and left out."
            self._emit(Notice("warning", text))
        asked = [(pair.instruction, chat_of(pair, self.config.prompt_template)) for pair in eval_pairs[:SAMPLES]]
        data = SupervisedData(train, held_out[: self.config.eval_examples], n_too_long, asked)
        result = self._supervised(data, self.config, measured=train)
        before, after = result.trained_first_loss, result.trained_last_loss
        if before is None or after is None or not after < before:
            raise RefusedError(
                f"The loss on the handbook's pairs did not fall in {result.n_steps} steps: {before} → {after}.",
                f"lower training.learning_rate (now {self.config.learning_rate:g}), or train more steps.",
            )
        return result

    def fitting(self, pairs: Sequence[AlpacaPair]) -> tuple[list[TokenizedExample], int]:
        """The pairs that fit into `max_seq_len` tokens, and how many did not."""
        template = self.config.prompt_template
        made = [tokenize_chat(chat_of(pair, template), pair.output, self.tokenizer, pair.id) for pair in pairs]
        kept = [example for example in made if len(example.ids) <= self.config.max_seq_len]
        return kept, len(made) - len(kept)
