"""Looking at answers of what is served, and how fast it is: what `judge.named` counts."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import mean, median
from typing import Protocol

from ai_forge.data_pipeline.schemas import Document
from ai_forge.judge.looked import Look, Looked, ServedSpeed
from ai_forge.judge.metrics.answers import code_compiles, refuses
from ai_forge.judge.metrics.inventions import inventions_in
from ai_forge.judge.metrics.known_names import KnownNames
from ai_forge.judge.metrics.mentions import FENCED, fence_language
from ai_forge.prompting.prompt import citations_in
from ai_forge.serving.runtime import Completion

N_PROMPTS = 3  # each is read twice: a few seconds with the default base
N_TOKENS = 32


def look_with(documents: Iterable[Document], roots: Iterable[str]) -> Look:
    """Looks at answers about a repository: `documents` are all that can be found of it, `roots` its names as a package."""
    known = KnownNames.of(documents=documents, roots=roots)

    def look(answer: str, question: str, shown: Sequence[Document]) -> Looked:
        languages = Counter(d.language for d in shown if d.language not in ("", "markdown", "text"))
        language = languages.most_common(1)[0][0] if languages else "python"
        found = inventions_in(answer, question, shown, known, language)
        pieces = []
        for named, code in FENCED.findall(answer):
            of = fence_language(named, language)
            compiles = code_compiles(code, of)
            if compiles is not None and code.strip():
                pieces.append((of, compiles))
        cited = citations_in(answer)
        return Looked(
            inventions=tuple(f"{one.kind}: {one.name}" for one in found),
            code=tuple(pieces),
            refused=refuses(answer),
            cited_shown=set(cited) <= {document.citation for document in shown} if cited else None,
        )

    return look


class Greedy(Protocol):
    """A loaded GGUF file."""

    def greedy(self, prompt: Sequence[int], max_tokens: int) -> Completion:
        """The most likely continuation, with nothing kept of earlier prompts."""


def speed_of(
    server: Greedy, prompts: Sequence[Sequence[int]], clock: Callable[[], float] = time.perf_counter
) -> ServedSpeed:
    """Time to the first token, and tokens a second after it: each of `prompts` is answered with one token and with more."""
    server.greedy(prompts[0], 1)  # the first one also reads the file from disk
    firsts, seconds, tokens, lengths = [], 0.0, 0, []
    for prompt in prompts:
        began = clock()
        first = server.greedy(prompt, 1)
        between = clock()
        whole = server.greedy(prompt, N_TOKENS)
        ended = clock()
        firsts.append(between - began)
        lengths.append(first.n_prompt_tokens)
        if whole.n_tokens > first.n_tokens:
            seconds += (ended - between) - (between - began)
            tokens += whole.n_tokens - first.n_tokens
    return ServedSpeed(
        first_token_s=median(firsts),
        tokens_per_s=tokens / seconds if tokens and seconds > 0 else None,
        n_prompts=len(prompts),
        prompt_tokens=mean(lengths),
    )
