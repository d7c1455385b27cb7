"""Training on conversations: any dataset whose records can be written as chats, from a file that its owner brings.

Same loop, same checkpoints and same result as any training. Only the last turn, the assistant's, is supervised.
"""

from collections.abc import Sequence

from ai_forge.data_pipeline.schemas.chats import ChatExample
from ai_forge.errors import InputError
from ai_forge.events import Notice
from ai_forge.prompting.prompt import Message
from ai_forge.training.forge import SAMPLES, FineTuneTrainer, SupervisedData
from ai_forge.training.record import TrainingResult
from ai_forge.training.tokens.packing import TokenizedExample, tokenize_chat


def prompt_of(chat: ChatExample) -> list[Message]:
    """The turns before the one that is to be learned."""
    return [{"role": turn.role, "content": turn.content} for turn in chat.messages[:-1]]


class ChatTrainer(FineTuneTrainer):
    """`FineTuneTrainer` on conversations."""

    def train_chats(self, train: Sequence[ChatExample], held_out: Sequence[ChatExample]) -> TrainingResult:
        """Train on `train`, watch `held_out`; continues a run that was cut off.

        Raises:
            InputError: no conversation fits into `max_seq_len`, or the time budget is too short for a step.
            RefusedError: the loss diverged.
        """
        fitting, n_too_long = self._fitting(train)
        watched, _ = self._fitting(held_out)
        if not fitting or not watched:
            raise InputError(
                f"{len(fitting)} training and {len(watched)} held-out conversations fit into {self.config.max_seq_len} "
                f"tokens ({n_too_long} are longer); at least one of each is needed.",
                "raise training.max_seq_len, or give more or shorter examples.",
            )
        if n_too_long:
            limit = self.config.max_seq_len
            self._emit(Notice("warning", f"{n_too_long} conversations are longer than {limit} tokens and left out."))
        asked = [(chat.messages[-2].content, prompt_of(chat)) for chat in held_out[:SAMPLES]]
        data = SupervisedData(fitting, watched[: self.config.eval_examples], n_too_long, asked)
        return self._supervised(data, self.config)

    def _fitting(self, chats: Sequence[ChatExample]) -> tuple[list[TokenizedExample], int]:
        """The conversations that fit into `max_seq_len` tokens, and how many did not."""
        made = [tokenize_chat(prompt_of(c), c.messages[-1].content, self.tokenizer, c.id) for c in chats]
        kept = [example for example in made if len(example.ids) <= self.config.max_seq_len]
        return kept, len(made) - len(kept)
