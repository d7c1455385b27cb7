"""The families of chat prompts: how to tell them, and a plain Jinja template of each; Alpaca's.

Method: a family is recognised by the markers in a template's text. Many models of Ollama's library carry a Go template
only; their family's plain Jinja then becomes the folder's chat template, and the exporter derives the Go one from it.
Gemma and Mistral have no system turn: their system message stands at the head of the first user turn.
No default system message is put in: what a Go template does not say, the trainer must not say either.
Tools, images and thinking blocks are not covered.
"""

from typing import Literal

from ai_forge.errors import InputError

Family = Literal["chatml", "llama3", "gemma", "phi3", "mistral"]

JINJA: dict[Family, str] = {
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{{ message['content'] + '<|im_end|>' + '\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
        "{{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}{{ '<start_of_turn>model\\n' + message['content'] + '<end_of_turn>\\n' }}"
        "{% elif message['role'] == 'user' %}{{ '<start_of_turn>user\\n' }}"
        "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\\n\\n' }}{% endif %}"
        "{{ message['content'] + '<end_of_turn>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
    ),
    "phi3": (
        "{% for message in messages %}"
        "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
        "{% elif message['role'] == 'user' %}{{ '[INST] ' }}"
        "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\\n\\n' }}{% endif %}"
        "{{ message['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
    ),
}

END_TOKENS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<|end_of_text|>", "</s>", "<EOT>",
)  # fmt: skip

# what tells a family
_MARKS: dict[Family, str] = {
    "chatml": "<|im_start|>",
    "llama3": "<|start_header_id|>",
    "gemma": "<start_of_turn>",
    "phi3": "<|end|>",
    "mistral": "[INST]",
}

ALPACA_TURN = "### Instruction:"
ALPACA_SYSTEM = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)
_ALPACA = (
    "{{ BOS }}{% if messages[0]['role'] != 'system' %}{{ 'SYSTEM' }}{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '\n\n### Instruction:\n' + message['content'] }}"
    "{% else %}{{ '\n\n### Response:\n' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\n### Response:\n' }}{% endif %}"
)


def alpaca_jinja(*, with_bos: bool) -> str:
    """Alpaca's prompt (Taori et al. 2023) as a chat template, so that trainer, GGUF and Modelfile hold one and the same.

    Its first sentence is the system message, put in where none is given. An input is part of the user's turn, below
    `### Input:`; the sentence is the one for instructions without input, since whoever asks a deployed model gives none.
    An answer ends with the base's end token. `with_bos`: the base expects its begin token first.
    """
    bos = "{{ bos_token }}" if with_bos else ""
    return _ALPACA.replace("{{ BOS }}", bos).replace("SYSTEM", ALPACA_SYSTEM)


def family_of(template: str) -> Family:
    """The family of a Jinja or Go template. Raises `InputError` for a template of neither.

    >>> family_of("<|im_start|>{{ role }}")
    'chatml'
    """
    for family, mark in _MARKS.items():
        if mark in template:
            return family
    known = ", ".join(f"{family}: {mark}" for family, mark in _MARKS.items())
    raise InputError(
        f"The model's chat template is of no known family ({known}).",
        "use an instruct model of one of these families.",
    )
