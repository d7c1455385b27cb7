"""A deployed model completes code at a place in a file, as an editor would ask it.

Fill-in-the-middle where the deployed file's vocabulary has the tokens, else a chat turn that is begun for the model; both are
raw continuations, so nothing stands around what it writes. A runtime that does not tell its prompt (Ollama) is asked as a chat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.gaps.neighbours import neighbours
from ai_forge.data_pipeline.languages import language_of
from ai_forge.model_files.gguf.reader import read_gguf
from ai_forge.prompting.completion import FimTokens, completion_chat, completion_opening, fim_prompt, trimmed

if TYPE_CHECKING:
    from ai_forge.data_pipeline.schemas import Document
    from ai_forge.serving.served_model import ServedModel

MAX_TOKENS = 128
_LOOP_LINES = 3
# a phrase with a word that is said at least three times in a row within a line; the first time stays
_LOOP_IN_A_LINE = re.compile(r"(?=[^\n]{0,20}[A-Za-z]{3})(\S[^\n]{7,60}?)\1{2,}")


class CodeCompletion(BaseModel):
    """What the model would put there, how it was asked, and which places of the repository it was shown.

    `repeated`: it went round in a loop, of which the first turn is left. `notes` say what a reader should know of it.
    """

    model_config = ConfigDict(frozen=True)

    text: str
    form: Literal["fill-in-the-middle", "chat"]
    shown: tuple[str, ...]
    model: str
    repeated: bool = False
    notes: tuple[str, ...] = ()


def complete_code(served: ServedModel, path: str, prefix: str, suffix: str, *, k: int = 0) -> CodeCompletion:
    """What `served` would write between `prefix` and `suffix` of the file `path`, with `k` places found for what stands before.

    In the middle of a line it is asked for the rest of that line, at an empty place for more.

    Raises:
        InputError: the prompt is longer than the deployed context.
    """
    model, runtime = served.deployment.model, served.runtime
    documents = _documents(served, path, prefix, k)
    language = language_of(path, (prefix + suffix).encode()) or ""
    tokens = set(read_gguf(served.deployment.gguf_path).metadata.get("tokenizer.ggml.tokens", []))
    fim = FimTokens.of(tokens.__contains__)
    form: Literal["fill-in-the-middle", "chat"] = "chat" if fim is None else "fill-in-the-middle"
    if fim is not None:
        written = runtime.greedy(model, fim_prompt(fim, path, prefix, suffix, documents), MAX_TOKENS).text
    else:
        chat = completion_chat(path, language, prefix, suffix, documents)
        prompt = runtime.render(model, chat).text
        if prompt is not None:
            written = runtime.greedy(model, prompt + completion_opening(language, prefix), MAX_TOKENS).text
        else:
            written = _unfenced("".join(runtime.chat(model, chat, max_tokens=MAX_TOKENS, temperature=0.0)), prefix)
    line = prefix.rpartition("\n")[2]
    text = trimmed(written, suffix, one_line=bool(line.strip() or suffix.partition("\n")[0].strip()))
    text, repeated = without_loop(text, prefix)
    return CodeCompletion(
        text=text,
        form=form,
        shown=tuple(d.citation for d in documents),
        model=model,
        repeated=repeated,
        notes=tuple(_notes(text, form, repeated)),
    )


def without_loop(text: str, prefix: str) -> tuple[str, bool]:
    """A completion up to where it begins to say again what it, or the code right before it, has just said; and whether it does.

    >>> without_loop("a = 1\\nb = 2\\na = 1\\nb = 2\\na = 1", "")
    ('a = 1\\nb = 2', True)
    >>> without_loop("x = f(1)\\nreturn x", "x = f(1)\\n")
    ('x = f(1)\\nreturn x', False)
    """
    inside = _LOOP_IN_A_LINE.search(text)
    if inside is not None and re.search("[A-Za-z]{3}", inside[1]):  # a row of zeros or a rule is code
        return text[: inside.end(1)].rstrip(), True
    lines = text.split("\n")
    before = [line for line in prefix.split("\n") if line.strip()]
    told = [line.strip() for line in lines if line.strip()]
    if len(told) >= _LOOP_LINES and told == [line.strip() for line in before[-len(told) :]]:
        return "", True  # nothing but what stands above already
    for size in range(1, len(lines) // 2 + 1):
        for start in range(len(lines) - 2 * size + 1):
            turn = lines[start : start + size]
            turns = 1
            while lines[start + turns * size : start + (turns + 1) * size] == turn:
                turns += 1
            # short turns stand twice in much code (`}`, `pass`): three times, or two of some lines
            if turns > 1 and any(line.strip() for line in turn) and turns * size >= _LOOP_LINES:
                return "\n".join(lines[: start + size]).rstrip(), True
    return text, False


def _notes(text: str, form: str, repeated: bool) -> Iterator[str]:
    if repeated:
        yield "The model went round in a loop; what it said again is cut off."
    if not text.strip():
        yield "The model wrote nothing that could stand here."
    if form == "chat":
        yield (
            "Its base has no tokens for filling in the middle, so it was asked in a chat and saw what follows only as text: expect "
            "little. A base for code has them: ai-forge run --base Qwen2.5-Coder-1.5B-Instruct."
        )


def _documents(served: ServedModel, path: str, prefix: str, k: int) -> Sequence[Document]:
    if served.index is None or k == 0:
        return ()
    return neighbours(path, prefix, served.index, k)


def _unfenced(answer: str, prefix: str) -> str:
    """The code of an answer without its fence, and without the beginning of the line where it was repeated."""
    body = answer.partition("```")[2].partition("\n")[2] if "```" in answer else answer
    return body.removeprefix(prefix.rpartition("\n")[2])
