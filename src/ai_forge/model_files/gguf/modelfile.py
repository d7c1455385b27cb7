"""The Modelfile of a GGUF: template, system text, stop words and sampling, each named outright."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ai_forge.errors import InputError
from ai_forge.model_files.gguf.ollama_prompt import ollama_prompt
from ai_forge.model_files.gguf.reader import check_gguf

# the only place that says what a Modelfile looks like; it lies with the other things about Ollama
TEMPLATE_FILE = resources.files("ai_forge") / "conductor" / "modelfile_template"


def create_ollama_modelfile(
    model_name: str,
    gguf_path: Path | str,
    system_prompt: str = "",
    *,
    temperature: float = 0.2,
    top_k: int = 40,
    top_p: float = 0.9,
    num_ctx: int = 4096,
    num_predict: int = 512,
    stop: Sequence[str] | None = None,
) -> str:
    """The text of a Modelfile for a GGUF. `stop` is by default what ends a turn in the model's chat template.

    `num_ctx` (tokens) may not exceed what the model was made for; `num_predict` is the longest answer in tokens.

    Raises:
        InputError: a setting out of range, a text that a Modelfile cannot hold, or a GGUF without a usable template.
    """
    path = Path(gguf_path)
    summary = check_gguf(path)
    prompt = ollama_prompt(path)
    settings = {
        "temperature": (temperature, 0.0, 2.0),
        "top_k": (top_k, 1, 1000),
        "top_p": (top_p, 0.0, 1.0),
        "num_ctx": (num_ctx, 128, summary.context_length or 2**20),
        "num_predict": (num_predict, 1, 2**20),
    }
    wrong = [
        f"{key} {value} (allowed {low:g} to {high:g})"
        for key, (value, low, high) in settings.items()
        if not low <= value <= high
    ]
    if wrong:
        raise InputError(f"Out of range: {', '.join(wrong)}.")
    if stop is None:
        stop = prompt.stop
    template = TEMPLATE_FILE.read_text(encoding="utf-8")
    if not system_prompt:
        template = template.replace('SYSTEM """{system_prompt}"""\n', "")
    text = template.format(
        model_name=_one_line(model_name),
        gguf_path=_one_line(str(path.resolve())),
        template=_quotable("the template", prompt.template),
        system_prompt=_quotable("the system prompt", system_prompt),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        num_ctx=num_ctx,
        num_predict=num_predict,
        stop="\n".join(f'PARAMETER stop "{_one_line(word)}"' for word in stop),
    )
    return text.rstrip("\n") + "\n"


def _quotable(what: str, text: str) -> str:
    if '"""' in text or text.endswith('"'):  # a quote before the closing three would be read as one of them
        raise InputError(f'A Modelfile cannot hold {what}: it contains """ or ends in a quote.', "rephrase it.")
    return text


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text or '"' in text:
        raise InputError(f"{text!r} holds a line break or a quote, which a Modelfile cannot take here.")
    return text
