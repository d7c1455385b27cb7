"""From a trained adapter to files that llama.cpp and Ollama run: merge, convert, Modelfile.

    merge_adapters_to_base   base + adapter → one model folder, on the weights the adapter was trained on
    convert_to_gguf          model folder → f16, q4_k_m, q5_k_m or q6_k
    create_ollama_modelfile  GGUF → Modelfile with template, system text, stop words and sampling settings

The Modelfile names its template, stop words, context and answer length outright: what Ollama would guess from the file
is the commonest reason for a model that was good in training and is not when served. Ollama 0.34 neither merges
adapters nor quantises on import, so both are done here. Nothing in this part needs torch.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ai_forge.errors import AIForgeError, InputError
from ai_forge.events import Progress
from ai_forge.model_files.base import Base
from ai_forge.model_files.gguf.ollama_prompt import ollama_prompt
from ai_forge.model_files.gguf.reader import check_gguf, gguf_tensor_types
from ai_forge.model_files.gguf.writer import QUANTIZATIONS, write_gguf
from ai_forge.model_files.merge import merge_adapters_to_base
from ai_forge.prompting.go_template import OllamaPrompt
from ai_forge.workspace import atomic_write

# the only place that says what a Modelfile looks like; it lies with the other things about Ollama
TEMPLATE_FILE = resources.files("ai_forge") / "conductor" / "modelfile_template"

__all__ = [
    "QUANTIZATIONS",
    "OllamaPrompt",
    "check_gguf",
    "convert_to_gguf",
    "create_ollama_modelfile",
    "gguf_tensor_types",
    "merge_adapters_to_base",
    "ollama_prompt",
]


def convert_to_gguf(
    model: Base | Path | str,
    output_path: Path | str,
    quantization: str = "q4_k_m",
    *,
    name: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes a model as GGUF and returns the path.

    `model` is a base or a model folder; `quantization` one of `QUANTIZATIONS`, whatever its case; `name` is what the
    file says it is called; `progress(done, total)` is called after each tensor.

    Raises:
        InputError: another quantization, or a model that cannot be exported.
        PrerequisiteError: too little disk, or no quantiser on this machine.
    """
    folder = model.folder if isinstance(model, Base) else Path(model)
    return write_gguf(folder, Path(output_path), quantization, name=name, progress=progress)


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


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m ai_forge.judge.exporter`: a model folder, merged with an adapter, as GGUF with its Modelfile."""
    parser = argparse.ArgumentParser(
        prog="python -m ai_forge.judge.exporter",
        description="Write a model folder as GGUF, with a Modelfile for Ollama.",
    )
    parser.add_argument("model", type=Path, help="the base's folder: config.json, safetensors, tokenizer")
    parser.add_argument("output", type=Path, help="the GGUF file to write; a Modelfile is written beside it")
    parser.add_argument("--adapter", type=Path, help="an adapter in PEFT's format, merged first")
    parser.add_argument("--quantization", default="q4_k_m", choices=QUANTIZATIONS)
    parser.add_argument("--name", help="what the model is called (default: the file's name)")
    parser.add_argument("--system", default="", help="the system prompt in the Modelfile")
    given = parser.parse_args(argv)
    name = given.name or given.output.stem
    try:
        folder: Path = given.model
        if given.adapter:
            folder = merge_adapters_to_base(folder, given.adapter)
        path = convert_to_gguf(folder, given.output, given.quantization, name=name)
        print(path)
        num_ctx = min(4096, check_gguf(path).context_length or 4096)
        modelfile = path.with_name("Modelfile")
        atomic_write(modelfile, create_ollama_modelfile(name, path, given.system, num_ctx=num_ctx))
        print(modelfile)
    except AIForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
