"""How a model is asked to complete code: fill-in-the-middle where its vocabulary has the tokens for it, else a chat turn.

In the chat turn the file is shown with a mark in place of what is missing, and the assistant's answer is begun for the model: a
fence, and the line that the gap stands in up to it. So what it writes next is the completion and nothing else, in both forms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ai_forge.data_pipeline.schemas import Document
from ai_forge.prompting.prompt import Message, document_text

__all__ = ["FimTokens", "completion_chat", "completion_opening", "fim_prompt", "trimmed"]

MISSING = "<MISSING>"
COMPLETION_SYSTEM = "You complete code. Write only the code that is missing, nothing else."
# of an editor's request: more of what comes before than of what comes after
PREFIX_CHARACTERS, SUFFIX_CHARACTERS = 1600, 600
_KNOWN = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>", "<|endoftext|>"),  # Qwen2.5-Coder
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>", "<|endoftext|>"),  # StarCoder 2
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "", "<｜end▁of▁sentence｜>"),  # DeepSeek-Coder
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "", ""),
)


@dataclass(frozen=True)
class FimTokens:
    """The tokens of a base that stand before the text above a gap, before the text below it, and before the missing text.

    `file` begins another file and `end` ends the missing text, where the base knows such; both stop whoever writes.
    """

    prefix: str
    suffix: str
    middle: str
    file: str = ""
    end: str = ""

    @classmethod
    def of(cls, is_token: Callable[[str], bool]) -> "FimTokens | None":
        """Those of a vocabulary; None where it has none. `is_token` tells whether a text is one of its tokens."""
        for names in _KNOWN:
            if all(is_token(name) for name in names[:4] if name):
                prefix, suffix, middle, file, end = names
                if not is_token(end):
                    end = ""
                return cls(prefix, suffix, middle, file, end)
        return None


def around(prefix: str, suffix: str, room: float = 1.0) -> tuple[str, str]:
    """As much of the text before and after a gap as is shown, or the nearest `room` (0–1) of that, cut at lines."""
    before, after = prefix[-round(room * PREFIX_CHARACTERS) :], suffix[: round(room * SUFFIX_CHARACTERS)]
    if len(before) < len(prefix) and "\n" in before:
        before = before.partition("\n")[2]
    if len(after) < len(suffix) and "\n" in after:
        after = after.rpartition("\n")[0]
    return before, after


def fim_prompt(
    tokens: FimTokens, path: str, prefix: str, suffix: str, documents: Sequence[Document] = (), *, room: float = 1.0
) -> str:
    """The prompt behind which the missing text belongs. Documents stand above as other files, where the base knows such.

    Of what stands around the gap the nearest `room` (0–1) is shown.
    """
    before, after = around(prefix, suffix, room)
    head = ""
    if tokens.file:
        head = "".join(f"{tokens.file}{d.path or d.name}\n{d.text}\n" for d in documents) + f"{tokens.file}{path}\n"
    elif documents:
        before = "".join(f"{d.text}\n\n" for d in documents) + before
    return f"{head}{tokens.prefix}{before}{tokens.suffix}{after}{tokens.middle}"


def completion_chat(
    path: str, language: str, prefix: str, suffix: str, documents: Sequence[Document] = ()
) -> list[Message]:
    """The chat up to the assistant's turn, which begins with `completion_opening`."""
    before, after = around(prefix, suffix)
    shown = [*(document_text(d) for d in documents), f"`{path}`:\n```{language}\n{before}{MISSING}{after}\n```"]
    asked = "\n\n".join([*shown, f"Write what stands in place of {MISSING}."])
    return [{"role": "system", "content": COMPLETION_SYSTEM}, {"role": "user", "content": asked}]


def completion_opening(language: str, prefix: str) -> str:
    """What the assistant's turn begins with: a fence and the line of the gap, up to it."""
    return f"```{language}\n{prefix.rpartition(chr(10))[2]}"


def trimmed(text: str, suffix: str, *, one_line: bool) -> str:
    """A completion as an editor would put it in: up to a closing fence, the line that follows anyway, or the line's end.

    >>> trimmed("a)\\nreturn b\\n```\\nDone.", "\\nreturn b\\n", one_line=False)
    'a)'
    """
    text = text.partition("\n```")[0]
    if one_line:
        return _without_tail(text.partition("\n")[0], suffix.partition("\n")[0])
    following = next((line for line in suffix.split("\n")[1:] if line.strip()), None)
    lines = text.split("\n")
    for number, line in enumerate(lines[1:], start=1):
        if following is not None and line.rstrip() == following.rstrip():
            return "\n".join(lines[:number])
    return text.rstrip()


def _without_tail(line: str, tail: str) -> str:
    """A line without what stands behind the gap already: `x)` before `)` is `x`."""
    if tail.strip() and line.rstrip().endswith(tail.strip()):
        return line.rstrip().removesuffix(tail.strip())
    return line.rstrip()
