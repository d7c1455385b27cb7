"""A file of examples dealt to train, valid and test: like conversations to one side, nothing that holds a secret.

There is no repository to split by. Conversations whose questions are nearly the same stand on one side, or the held-out ones
would be known; which side is decided by the hash of the group, so that the order of the file changes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ai_forge.data_pipeline.datasets.formats import Dataset, convert
from ai_forge.data_pipeline.schemas.chats import ChatExample
from ai_forge.data_pipeline.secrets.masking import without_secrets
from ai_forge.data_pipeline.text.near_duplicates import near_duplicate_pairs
from ai_forge.errors import InputError

SIDES = ("train", "valid", "test")
HELD_OUT_SHARE = 0.1
"""Of the conversations for each of `valid` and `test`."""
LEAST_EXAMPLES = 10
ALIKE = 0.8
"""Jaccard similarity of word runs from which two questions count as the same."""


@dataclass(frozen=True)
class ChatSplit:
    """Conversations by side, and what was left out by reason."""

    sides: dict[str, list[ChatExample]]
    rejected: Counter[str]


def split_chats(dataset: Dataset) -> ChatSplit:
    """Deal the records of `dataset`, in whatever format they are.

    Raises:
        InputError: they cannot be read as conversations, or are too few, or all alike.
    """
    records = convert(dataset, "messages").records
    chats = [record for record in records if isinstance(record, ChatExample)]
    distinct = list({chat.id: chat for chat in chats}.values())
    clean, rejected = without_secrets(distinct)
    rejected += Counter({"duplicate": len(chats) - len(distinct)})
    if len(clean) < LEAST_EXAMPLES:
        raise InputError(
            f"{len(clean)} different examples are too few to train on and hold some out; at least {LEAST_EXAMPLES} are needed.",
            "give more examples.",
        )
    sides: dict[str, list[ChatExample]] = {side: [] for side in SIDES}
    n_held_out = max(1, round(HELD_OUT_SHARE * len(clean)))
    for group in _groups(clean):
        # The smallest groups of the hash's order fill test, then valid: a large group of look-alikes is trained on.
        side = next((s for s in ("test", "valid") if len(sides[s]) + len(group) <= n_held_out), "train")
        sides[side] += group
    empty = [side for side in SIDES if not sides[side]]
    if empty:
        raise InputError(
            f"Nothing is left for {' and '.join(empty)}: the {len(clean)} examples ask nearly the same.",
            "give examples that differ in what they ask.",
        )
    order = {chat.id: place for place, chat in enumerate(clean)}
    return ChatSplit({s: sorted(found, key=lambda c: order[c.id]) for s, found in sides.items()}, +rejected)


def _groups(chats: Sequence[ChatExample]) -> list[list[ChatExample]]:
    """Conversations that ask nearly the same, together; the groups in the order of a hash."""
    leader = list(range(len(chats)))

    def find(place: int) -> int:
        while leader[place] != place:
            place = leader[place]
        return place

    # Of each the last question: its answer is what is learnt.
    questions = [chat.messages[-2].content for chat in chats]
    for first, second, _ in near_duplicate_pairs(questions, ALIKE):
        leader[find(second)] = find(first)
    groups: dict[int, list[ChatExample]] = {}
    for place, chat in enumerate(chats):
        groups.setdefault(find(place), []).append(chat)
    return sorted(groups.values(), key=lambda group: min(chat.id for chat in group))
