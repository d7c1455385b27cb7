"""When a step goes wrong: memory runs out, the loss is no number, the training diverges.

Memory: a backend raises Python's MemoryError where its library runs out. The micro batch is halved for good and the step is
done again with twice as many passes: the loss is summed over the step and divided once, so the result is the same but for
rounding. The new size is kept with the checkpoints, so that a resumed run cuts its batches in the same way. Of several
processes all halve when one runs out, and the one that did is named.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ai_forge.config import FineTuneConfig
from ai_forge.errors import PrerequisiteError, RefusedError
from ai_forge.events import Notice, Sink
from ai_forge.training.backends.base import TokenSums, Trainee
from ai_forge.training.group import ALONE, Group, share
from ai_forge.training.losses import Objective
from ai_forge.training.tokens.packing import collate
from ai_forge.workspace import atomic_write


class MicroBatches:
    """How many items go through the model at a time, of those that this process of the `group` takes.

    In `lockstep` all processes do the same number of passes; those that lack items repeat one, which counts for nothing.
    """

    def __init__(self, size: int, emit: Sink, group: Group = ALONE, *, lockstep: bool = False) -> None:
        self.size = size
        self._emit = emit
        self._group = group
        self._lockstep = lockstep

    @classmethod
    def of(cls, config: FineTuneConfig, emit: Sink, group: Group) -> "MicroBatches":
        """As the settings ask."""
        return cls(config.micro_batch_size, emit, group, lockstep=config.sharded)

    def forward_backward(self, trainee: Trainee, objective: Objective, items: Sequence[Any]) -> tuple[TokenSums, int]:
        """Add the gradients of all `items`; return the sums and how many tokens were computed, over the whole group.

        Raises:
            PrerequisiteError: a single item is too much for the memory.
        """

        def attempt() -> tuple[TokenSums, int]:
            divisor, sums, n_tokens = objective.weight(items), TokenSums(), 0
            for part in self._parts(items):
                batch = collate(objective.examples(part))
                sums += trainee.forward_backward(batch, objective.loss(part), divisor)
                n_tokens += batch.n_tokens
            for part in self._idle_parts(items):
                # times 0, not skipped: the backward pass puts the layers together, too
                trainee.forward_backward(collate(objective.examples(part)), lambda log_probs: 0 * log_probs.sum(), 1.0)
            return sums, n_tokens

        result = self._until_it_fits(trainee, objective, items, attempt)
        self._group.sum_gradients(trainee)
        return result

    def evaluate(self, trainee: Trainee, objective: Objective, items: Sequence[Any]) -> TokenSums:
        """The sums over `items`, without gradients, over the whole group.

        Raises:
            PrerequisiteError: a single item is too much for the memory.
        """

        def attempt() -> tuple[TokenSums, int]:
            sums = sum((objective.evaluate(trainee, part) for part in self._parts(items)), TokenSums())
            for part in self._idle_parts(items):
                objective.evaluate(trainee, part)
            return sums, 0

        return self._until_it_fits(trainee, objective, items, attempt)[0]

    def _parts(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        own = share(items, self._group)
        return [own[first : first + self.size] for first in range(0, len(own), self.size)]

    def _idle_parts(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        """What this process passes beyond its own parts, so as not to stay behind the one with the most."""
        if not self._lockstep:
            return []
        largest_share = -(-len(items) // self._group.size)  # rounded up, as are the passes that it takes
        most_passes = -(-largest_share // self.size)
        return [items[:1]] * (most_passes - len(self._parts(items)))

    def _until_it_fits(
        self,
        trainee: Trainee,
        objective: Objective,
        items: Sequence[Any],
        attempt: Callable[[], tuple[TokenSums, int]],
    ) -> tuple[TokenSums, int]:
        """What `attempt` gives in all processes, added up, once it succeeds in each."""
        while True:
            sums, n_tokens, problem = TokenSums(), 0, ""
            try:
                sums, n_tokens = attempt()
            except MemoryError as error:
                problem = str(error) or "out of memory"
                if self._lockstep:  # the others wait inside of the model for this one's piece
                    raise PrerequisiteError(
                        f"Out of memory in process {self._group.rank} of {self._group.size}, whose layers are sharded: {problem}",
                        "halve training.micro_batch_size and double training.grad_accum_steps: the result is the same.",
                    ) from None
            # outside of the handler, where the failed pass's tensors are no longer held by its traceback
            figures = sums.loss, sums.n_tokens, sums.n_correct, n_tokens, bool(problem)
            loss, *counts = self._group.sum(figures)
            n_supervised, n_correct, n_computed, n_failed = map(int, counts)
            if not n_failed:
                return TokenSums(loss, n_supervised, n_correct), n_computed
            trainee.discard_gradients()
            self._halve(self._group.gather(problem), objective, items)

    def _halve(self, problems: Sequence[str], objective: Objective, items: Sequence[Any]) -> None:
        """Halve the size because of `problems`, one a process, empty where it had none."""
        rank, problem = next((rank, text) for rank, text in enumerate(problems) if text)
        if len(problems) > 1:
            problem = f"process {rank} of {len(problems)}: {problem}"
        if self.size == 1:
            longest = max(len(example.ids) for example in objective.examples(items))
            raise PrerequisiteError(
                f"Out of memory with one example at a time ({longest} tokens are the longest): {problem}",
                "set training.gradient_checkpointing to on, lower training.max_seq_len or training.rank, or choose a smaller "
                "base; what was saved is continued.",
            )
        before, self.size = self.size, (self.size + 1) // 2
        n_passes = -(-len(share(items, self._group)) // self.size)
        what = f"out of memory with {before} examples at a time: now {self.size}, {n_passes} passes a step"
        self._emit(Notice("warning", f"{what}; the result is the same ({problem})."))


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
