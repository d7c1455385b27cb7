"""From a trained adapter to files that llama.cpp and Ollama run: merge, convert, Modelfile.

    merge_adapters_to_base   base + adapter → one model folder, on the weights the adapter was trained on
    convert_to_gguf          model folder → f16, q4_k_m, q5_k_m, q6_k or q8_0
    create_ollama_modelfile  GGUF → Modelfile with template, system text, stop words and sampling settings

The Modelfile names its template, stop words, context and answer length outright: what Ollama would guess from the file
is the commonest reason for a model that was good in training and is not when served. Ollama 0.34 neither merges
adapters nor quantises on import, so both are done here. Nothing in this part needs torch.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ai_forge.errors import AIForgeError
from ai_forge.events import Progress
from ai_forge.model_files.base import Base
from ai_forge.model_files.gguf.modelfile import create_ollama_modelfile
from ai_forge.model_files.gguf.ollama_prompt import ollama_prompt
from ai_forge.model_files.gguf.reader import check_gguf, gguf_tensor_types
from ai_forge.model_files.gguf.writer import QUANTIZATIONS, write_gguf
from ai_forge.model_files.merge import merge_adapters_to_base
from ai_forge.prompting.go_template import OllamaPrompt
from ai_forge.workspace import atomic_write

__all__ = [
    "QUANTIZATIONS",
    "OllamaPrompt",
    "check_gguf",
    "convert_to_gguf",
    "create_ollama_modelfile",
    "gguf_tensor_types",
    "merge_adapters_to_base",
    "metadata_of",
    "ollama_prompt",
]


def convert_to_gguf(
    model: Base | Path | str,
    output_path: Path | str,
    quantization: str = "f16",
    *,
    name: str | None = None,
    about: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes a model as GGUF and returns the path.

    `model` is a base or a model folder; `quantization` one of `QUANTIZATIONS`, whatever its case; `name` is what the
    file says it is called, `about` more of what it says of itself (`metadata_of`); `progress(done, total)` is called
    after each tensor.

    Raises:
        InputError: another quantization, or a model that cannot be exported.
        PrerequisiteError: too little disk, or no quantiser on this machine.
    """
    folder = model.folder if isinstance(model, Base) else Path(model)
    return write_gguf(folder, Path(output_path), quantization, name=name, about=about, progress=progress)


def metadata_of(*, licence: str = "", base: str = "", data: str = "", run: str = "") -> dict[str, str]:
    """What a file says of where it comes from: licence and base under GGUF's own keys, data and run under ours.

    >>> metadata_of(licence="Apache-2.0", run="12ab")
    {'general.license': 'Apache-2.0', 'ai_forge.run': '12ab'}
    """
    told = {"general.license": licence, "ai_forge.base": base, "ai_forge.data": data, "ai_forge.run": run}
    return {key: text for key, text in told.items() if text}


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
