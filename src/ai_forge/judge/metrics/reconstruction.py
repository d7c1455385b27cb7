"""Reconstruction: does a model write a block of the repository again, from its place, signature and documentation?

Far above the base on blocks that it was trained on and not on held-out ones, it has learned by heart; on both, it has learned
how the repository writes. So the two are measured apart. The semantic similarity is the cosine of a sentence encoder, which
says more of names and comments than of what code does; without an encoder on the machine it is None.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rapidfuzz.distance import Levenshtein

from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.search.embedders.embedding import Embedder, Texts, default_embedder, embedder_named
from ai_forge.judge.metrics.codebleu import LANGUAGES, compute_codebleu
from ai_forge.judge.metrics.mentions import FENCED
from ai_forge.judge.metrics.models import Answering, opened
from ai_forge.prompting.prompt import Message

MAX_NEW_TOKENS = 512


def evaluate_reconstruction(
    model: Answering | str | Path,
    original_code_blocks: Sequence[CodeBlock],
    held_out_blocks: Sequence[CodeBlock] = (),
    *,
    embedder: Embedder | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> dict[str, float | None]:
    """How near `model` comes to blocks that it may have been trained on, and to held-out ones where they are given.

    Args:
        model: see `models`: a name or path, or whatever has `reply`.
        embedder: for the semantic similarity; the machine's own where it is left out.

    Returns:
        For each set, those of `held_out_blocks` with `held_out_` before the name, the means of `edit_distance`
        (Levenshtein over characters by the longer length, 0–1), `edit_similarity` (1 less that), `semantic_similarity` (cosine)
        and `codebleu` (of the corpus, the mean of its languages by blocks), and the count `n_blocks`. None: not measured.

    Raises:
        ValueError: there is no block.
    """
    if not original_code_blocks:
        raise ValueError("reconstruction needs at least one block")
    if embedder is None:
        embedder = embedder_named(default_embedder())
    with opened(model) as asked:
        measured = _measured(asked, original_code_blocks, embedder, max_new_tokens)
        if held_out_blocks:
            apart = _measured(asked, held_out_blocks, embedder, max_new_tokens)
            measured |= {f"held_out_{name}": value for name, value in apart.items()}
    return measured


def reconstruction_chat(block: CodeBlock) -> list[Message]:
    """What the model is asked: everything about a block but its body."""
    lines = [f"Write the {block.block_type} `{block.metadata.qualified_name}` of `{block.path}`. It begins with:"]
    lines.append(f"```{block.language}\n{block.metadata.signature}\n```")
    if block.docstring:
        lines.append(f"Its documentation: {block.docstring}")
    lines.append("Answer with the code alone.")
    return [{"role": "user", "content": "\n".join(lines)}]


def code_in(answer: str) -> str:
    """The code of an answer: its first fence, or all of it.

    >>> code_in("Here:\\n```python\\nx = 1\\n```\\nDone.")
    'x = 1'
    """
    fenced = FENCED.findall(answer)
    if not fenced:
        return answer.strip()
    return str(fenced[0][1]).strip()


def _measured(
    asked: Answering, blocks: Sequence[CodeBlock], embedder: Embedder, max_new_tokens: int
) -> dict[str, float | None]:
    written = [code_in(asked.reply(reconstruction_chat(block), max_new_tokens)) for block in blocks]
    originals = [block.source_code.strip() for block in blocks]
    pairs = list(zip(written, originals, strict=True))
    distance = fmean(Levenshtein.normalized_distance(ours, theirs) for ours, theirs in pairs)
    return {
        "edit_distance": distance,
        "edit_similarity": 1 - distance,
        "semantic_similarity": _similarity(written, originals, embedder),
        "codebleu": _codebleu(pairs, [block.language for block in blocks]),
        "n_blocks": float(len(blocks)),
    }


def _similarity(ours: Sequence[str], theirs: Sequence[str], embedder: Embedder) -> float | None:
    if embedder.name == "none":
        return None
    vectors = embedder.embed(Texts([*ours, *theirs], [text.split() for text in (*ours, *theirs)]))
    cosines = (vectors[: len(ours)] * vectors[len(ours) :]).sum(axis=1)
    return float(cosines.mean())


def _codebleu(pairs: Sequence[tuple[str, str]], languages: Sequence[str]) -> float | None:
    total, n = 0.0, 0
    for language in sorted(set(languages) & set(LANGUAGES)):
        chosen = [pair for pair, of in zip(pairs, languages, strict=True) if of == language]
        ours, theirs = [written for written, _ in chosen], [original for _, original in chosen]
        total += len(chosen) * compute_codebleu(ours, theirs, language)
        n += len(chosen)
    if not n:
        return None
    return total / n
