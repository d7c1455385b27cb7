"""Code to complete as the trainer reads it: the prompt that an editor's request becomes, then the missing text and its end.

Prompt and missing text are tokenized apart, as they are where a model is asked. Supervised are the missing text and the token
that ends one in the base's own pretraining, so that who is trained on them also stops there.
"""

from collections.abc import Sequence

from ai_forge.data_pipeline.schemas.completions import CompletionExample
from ai_forge.errors import InputError
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.completion import FimTokens, fim_prompt
from ai_forge.training.tokens.packing import TokenizedExample

__all__ = ["require_fim", "tokenize_completions"]

_ROOMS = (1.0, 0.7, 0.5, 0.3, 0.15)
"""Of what stands around a gap so much is kept, the most that fits."""


def require_fim(tokenizer: ChatTokenizer, base_name: str) -> FimTokens:
    """A base's fill-in-the-middle tokens.

    Raises:
        InputError: it has none.
    """
    fim = FimTokens.of(lambda text: len(tokenizer.encode(text)) == 1)
    if fim is None:
        raise InputError(
            f"{base_name} has no fill-in-the-middle tokens to complete code with.",
            "name a base that has, such as Qwen2.5-Coder, or leave synthesis.completion_share at 0.",
        )
    return fim


def tokenize_completions(
    examples: Sequence[CompletionExample], fim: FimTokens, tokenizer: ChatTokenizer, max_seq_len: int
) -> tuple[list[TokenizedExample], int]:
    """The examples in at most `max_seq_len` tokens each, and how many do not fit however little is shown around the gap.

    Where it is too long the prefix is cut on the left and the suffix on the right, then the documents are left out.
    """
    end = tokenizer.end_of_turn_id
    if fim.end:
        (end,) = tokenizer.encode(fim.end)
    made: list[TokenizedExample] = []
    for example in examples:
        text = [*tokenizer.encode(example.text), end]
        for documents in (example.documents, ()):
            prompts = (
                tokenizer.encode(fim_prompt(fim, example.path, example.prefix, example.suffix, documents, room=room))
                for room in _ROOMS
            )
            prompt = next((ids for ids in prompts if len(ids) + len(text) <= max_seq_len), None)
            if prompt is not None:
                # a context of its own, so that the gaps are spread over the steps of an epoch
                made.append(TokenizedExample((*prompt, *text), len(prompt), f"completion {len(made)}"))
                break
    return made, len(examples) - len(made)
