"""The two families of chat prompts, ChatML and Llama 3: how to tell them, and a plain Jinja template of each; Alpaca's.

Method: a family is recognised by the markers in a template's text. Many models of Ollama's library carry a Go template
only; their family's plain Jinja then becomes the folder's chat template, and the exporter derives the Go one from it.
No default system message is put in: what a Go template does not say, the trainer must not say either.
Tools, images and thinking blocks are not covered.
"""

from typing import Literal

from ai_forge.errors import InputError

Family = Literal["chatml", "llama3"]

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
}


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
    return _ALPACA.replace("{{ BOS }}", "{{ bos_token }}" if with_bos else "").replace("SYSTEM", ALPACA_SYSTEM)


def family_of(template: str) -> Family:
    """The family of a Jinja or Go template. Raises `InputError` for a template of neither.

    >>> family_of("<|im_start|>{{ role }}")
    'chatml'
    """
    if "<|im_start|>" in template:
        return "chatml"
    if "<|start_header_id|>" in template:
        return "llama3"
    raise InputError(
        "The model's chat template is neither ChatML (<|im_start|>) nor Llama 3 (<|start_header_id|>).",
        "use an instruct model of one of these families.",
    )
