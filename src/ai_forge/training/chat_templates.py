"""The two families of chat prompts, ChatML and Llama 3, as Jinja (trainer, llama.cpp) and Go (Ollama).

Method: a family is recognised by the markers in a template's text. Where a GGUF brings no Jinja template (many models
of Ollama's library carry only a Go one) the family's plain Jinja is used; the Go template renders what a Jinja template
renders for system, user and assistant turns, including a default system message that the Jinja puts in by itself.

Measured trap: SmolLM2's Jinja adds "You are a helpful AI assistant named SmolLM…" when no system message is given;
Ollama's own ChatML template does not, so "Say hi." is another prompt there. `go_template` takes that text as argument.
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

STOP: dict[Family, tuple[str, ...]] = {
    "chatml": ("<|im_end|>", "<|im_start|>"),
    "llama3": ("<|eot_id|>", "<|start_header_id|>", "<|end_of_text|>"),
}


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
