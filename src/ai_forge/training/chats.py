"""Training on conversations: any dataset whose records can be written as chats, from a file that its owner brings.

Same loop, same checkpoints and same result as any training. Only the last turn, the assistant's, is supervised.
"""

from collections.abc import Sequence

from ai_forge.data_pipeline.schemas.chats import ChatExample
from ai_forge.prompting.prompt import Message
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.record import TrainingResult
from ai_forge.training.supervised_data import Lesson


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
        lessons, watched = (
            [Lesson(chat.id, chat.messages[-2].content, prompt_of(chat), chat.messages[-1].content) for chat in chats]
            for chats in (train, held_out)
        )
        advice = "raise training.max_seq_len, or give more or shorter examples."
        return self._supervised(self.reading.lessons(lessons, watched, "conversations", advice), self.config)
