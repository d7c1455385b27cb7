"""Text that is scored token by token, cut to what a model reads at once."""

from collections.abc import Sequence

from ai_forge.training.tokens.packing import TokenizedExample

WINDOW = 1024  # tokens


def code_windows(ids: Sequence[int], size: int = WINDOW) -> list[TokenizedExample]:
    """`ids` in pieces of at most `size` tokens; each piece begins with the last token of the one before.

    >>> [(w.ids, w.n_prompt) for w in code_windows([1, 2, 3, 4], size=3)]
    [((1, 2, 3), 1), ((3, 4), 1)]
    """
    starts = range(0, len(ids) - 1, size - 1)  # overlapping by the token that is given, so that each other counts once
    return [TokenizedExample(tuple(ids[start : start + size]), 1) for start in starts]
