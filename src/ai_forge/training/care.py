"""When a step goes wrong: memory runs out, the loss is no number, the training diverges.

Memory: a backend raises Python's MemoryError where its library runs out. The micro batch is halved for good and the step is
done again with twice as many passes: the loss is summed over the step and divided once, so the result is the same but for
rounding. The new size is kept with the checkpoints, so that a resumed run cuts its batches in the same way.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ai_forge.errors import PrerequisiteError, RefusedError
from ai_forge.events import Notice, Sink
from ai_forge.training.backends.base import TokenSums, Trainee
from ai_forge.training.group import ALONE, Group, share
from ai_forge.training.losses import Objective
from ai_forge.training.packing import collate
from ai_forge.workspace import atomic_write

Result = TypeVar("Result")


class MicroBatches:
    """How many items go through the model at a time, of those that this process of the `group` takes."""

    def __init__(self, size: int, emit: Sink, group: Group = ALONE) -> None:
        self.size = size
        self._emit = emit
        self._group = group

    def forward_backward(self, trainee: Trainee, objective: Objective, items: Sequence[Any]) -> tuple[TokenSums, int]:
        """Add the gradients of all `items`; return the sums and how many tokens were computed, over the whole group.

        Raises:
            PrerequisiteError: a single item is too much for the memory.
        """

        def attempt() -> tuple[TokenSums, int]:
            divisor, sums, n_tokens = objective.weight(items), TokenSums(), 0
            for part in self._parts(own):
                batch = collate(objective.examples(part))
                sums += trainee.forward_backward(batch, objective.loss(part), divisor)
                n_tokens += batch.n_tokens
            return sums, n_tokens

        own = share(items, self._group)
        sums, n_tokens = self._until_it_fits(trainee, objective, own, attempt)
        self._group.sum_gradients(trainee)
        return self._summed(sums, n_tokens)

    def evaluate(self, trainee: Trainee, objective: Objective, items: Sequence[Any]) -> TokenSums:
        """The sums over `items`, without gradients, over the whole group.

        Raises:
            PrerequisiteError: a single item is too much for the memory.
        """

        def attempt() -> TokenSums:
            return sum((objective.evaluate(trainee, part) for part in self._parts(own)), TokenSums())

        own = share(items, self._group)
        return self._summed(self._until_it_fits(trainee, objective, own, attempt), 0)[0]

    def _summed(self, sums: TokenSums, n_tokens: int) -> tuple[TokenSums, int]:
        loss, *counts = self._group.sum([sums.loss, sums.n_tokens, sums.n_correct, n_tokens])
        n_supervised, n_correct, n_computed = map(int, counts)
        return TokenSums(loss, n_supervised, n_correct), n_computed

    def _parts(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        return [items[first : first + self.size] for first in range(0, len(items), self.size)]

    def _until_it_fits(
        self, trainee: Trainee, objective: Objective, items: Sequence[Any], attempt: Callable[[], Result]
    ) -> Result:
        while True:
            try:
                return attempt()
            except MemoryError as error:
                problem = str(error)
            # outside of the handler, where the failed pass's tensors are no longer held by its traceback
            trainee.discard_gradients()
            self._halve(problem, objective, items)

    def _halve(self, problem: str, objective: Objective, items: Sequence[Any]) -> None:
        if self.size == 1:
            longest = max(len(example.ids) for example in objective.examples(items))
            raise PrerequisiteError(
                f"Out of memory with one example at a time ({longest} tokens are the longest): {problem}",
                "lower training.max_seq_len or training.rank, or choose a smaller base; what was saved is continued.",
            )
        before, self.size = self.size, (self.size + 1) // 2
        n_passes = -(-len(items) // self.size)
        self._emit(
            Notice(
                "warning",
                f"out of memory with {before} examples at a time: now {self.size}, {n_passes} passes a step; "
                f"the result is the same ({problem}).",
            )
        )


def stop_training(
    folder: Path, step: int, why: str, objective: Objective, items: Sequence[Any], next_step: str
) -> RefusedError:
    """Keep the batch of a step that went wrong in `folder`, and return the error that names it."""
    path = folder / f"stopped-{step:06d}.json"
    examples = [
        {"ids": list(example.ids), "n_prompt": example.n_prompt, "context": example.context}
        for example in objective.examples(items)
    ]
    atomic_write(path, json.dumps({"step": step, "why": why, "examples": examples}))
    return RefusedError(f"{why} Its batch is kept in {path}.", next_step)
