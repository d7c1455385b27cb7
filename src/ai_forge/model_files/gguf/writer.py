"""A model folder becomes a GGUF file: float16, or one of the K-quant mixes.

Method: names, row order and metadata as llama.cpp's converter writes them; norms, biases and rope factors in float32;
a tied head is left out. Tensors stand in llama.cpp's loading order (by layer, then by name), so a mix can be chosen and
quantised in one pass without a float16 file in between, and the result is what `llama-quantize` makes of our float16
file. One tensor is in memory at a time, and slices of it in float32; the file appears whole or not at all.

Measured, SmolLM2-135M on 2 cores: f16 1.6 s, q4_k_m 2.7 s, as long as llama-quantize itself takes.
Weights are rounded to float16 first, then quantised. Against llama.cpp's own converter on the same folder (SmolLM2, and
a bfloat16 Llama with Llama 3 rope): every tensor byte-identical, and all metadata but the file's title and size label.
It covers the architectures of `model_files/architectures`. Source: llama.cpp `conversion/`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Type

from ai_forge.config.training import PromptTemplate
from ai_forge.errors import InputError
from ai_forge.events import Progress
from ai_forge.model_files.architectures import GGUF_ARCHITECTURES, gguf_name, norm_shift, permute, permuted_heads
from ai_forge.model_files.base import check_folder
from ai_forge.model_files.gguf.config import head_dim, llama3_rope_factors, rope_of, settings_to_gguf
from ai_forge.model_files.gguf.kquants import MIXES, choose_types, quantize, quantized_bytes
from ai_forge.model_files.gguf.metadata import encode_header, padded, string, uint32
from ai_forge.model_files.gguf.reader import GGUFTensor
from ai_forge.model_files.gguf.vocabulary import require_servable, served_name, tokenizer_metadata
from ai_forge.model_files.tensors import Weights, bf16_to_f32, slices, to_storage
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.go_template import check_followable
from ai_forge.prompting.prompt import messages_for
from ai_forge.workspace import atomic_file, require_disk

QUANTIZATIONS = ("f16", *MIXES)
F16_FILE_TYPE = 1
HEADER_ALLOWANCE_BYTES = 16_000_000  # a vocabulary of 150k tokens with its merges takes about 6 MB
ROPE_FREQS = "rope_freqs.weight"


@dataclass(frozen=True)
class _Row:
    """A tensor to write: its GGUF name, where it comes from, and what it becomes."""

    name: str
    source: str | None  # Hugging Face name; None for the rope factors, which are computed
    shape: tuple[int, ...]
    type: Type


def write_gguf(
    folder: Path,
    output_path: Path,
    quantization: str = "f16",
    *,
    name: str | None = None,
    about: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the model in `folder` as GGUF. `quantization` is one of `QUANTIZATIONS`, whatever its case.

    `name` is what the file says it is called, `about` are more of its metadata (key to text). `progress(done, total)` is called
    after each tensor.

    Raises:
        InputError: another quantization, or a folder that cannot be exported (architecture, tokenizer, shapes).
        PrerequisiteError: too little disk, or no quantiser on this machine.
    """
    kind = quantization.lower()
    if kind not in QUANTIZATIONS:
        raise InputError(f"Quantization {quantization!r} is not one of {', '.join(QUANTIZATIONS)}.")
    config, weights = check_folder(folder), Weights(folder)
    rows = _plan(weights, config, kind)
    table = [GGUFTensor(row.name, row.shape, row.type, 0, quantized_bytes(row.shape, row.type)) for row in rows]
    output_path.parent.mkdir(parents=True, exist_ok=True)
    n_bytes = sum(padded(tensor.n_bytes) for tensor in table) + HEADER_ALLOWANCE_BYTES
    require_disk(output_path.parent, n_bytes, f"Writing {output_path.name}")
    values = settings_to_gguf(config) | {"general.name": string(served_name(name or folder.name, folder))}
    values |= tokenizer_metadata(folder, config)
    values |= {key: string(text) for key, text in (about or {}).items()}
    file_type = F16_FILE_TYPE
    if kind in MIXES:
        file_type = MIXES[kind].file_type
    values |= {"general.quantization_version": uint32(2), "general.file_type": uint32(file_type)}
    header = encode_header(values, table)
    with atomic_file(output_path) as out:
        out.write(header)
        for done, (row, tensor) in enumerate(zip(rows, table, strict=True), 1):
            for data in _encoded(row, weights, config):
                out.write(data.data)
            weights.release()
            out.write(bytes(padded(tensor.n_bytes) - tensor.n_bytes))
            if progress:
                progress(done, len(rows))
    return output_path


def check_exportable(
    folder: Path, quantization: str = "f16", *, prompt_template: PromptTemplate = "chat", ollama: bool = False
) -> None:
    """Find out before training whether what is trained on the base in `folder` can be written as GGUF. Writes nothing.

    `prompt_template` is how it is to be asked; `ollama`: it is to be served there, so a Go template must be able to follow.

    Raises:
        InputError: it cannot: architecture, shapes, tokenizer, chat template or rope scaling are in the way, or llama.cpp
            would cut text into other tokens than the trainer.
    """
    config = check_folder(folder)
    _plan(Weights(folder), config, quantization)
    settings_to_gguf(config)
    served_name(folder.name, folder)
    tokenizer = ChatTokenizer(folder, prompt_template)
    values = tokenizer_metadata(folder, config, tokenizer)
    tokenizer.render(messages_for("Does it render?", ()))
    if ollama:
        check_followable(tokenizer)
    require_servable(folder, config, values, tokenizer)


def _plan(weights: Weights, config: Mapping[str, Any], kind: str) -> list[_Row]:
    tied = bool(config.get("tie_word_embeddings"))
    rows = []
    for source, spec in weights.specs.items():
        # older transformers stored the frequencies, and some a tied head a second time
        if source.endswith("rotary_emb.inv_freq") or (tied and source == "lm_head.weight"):
            continue
        name = gguf_name(source, GGUF_ARCHITECTURES[config["model_type"]])
        if name is None:
            raise InputError(f"{weights.folder} has a tensor {source} that {config['model_type']} models have not.")
        matrix = len(spec.shape) > 1 and not name.endswith("_norm.weight")
        rows.append(_Row(name, source, spec.shape, Type.F16 if matrix else Type.F32))
    if rope_of(config)["rope_type"] == "llama3":
        rows.append(_Row(ROPE_FREQS, None, (head_dim(config) // 2,), Type.F32))
    rows.sort(key=_loading_order)
    if kind not in MIXES:
        return rows
    layers, heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
    is_70b = layers == 80 and (config["model_type"] == "qwen2" or heads != int(config["num_key_value_heads"]))
    plain = [(row.name, row.shape, row.type) for row in rows]
    types = choose_types(plain, MIXES[kind], n_layers=layers, is_70b=is_70b)
    return [_Row(row.name, row.source, row.shape, chosen) for row, chosen in zip(rows, types, strict=True)]


def _loading_order(row: _Row) -> tuple[int, bytes]:
    """llama.cpp's: what belongs to no layer first, then layer by layer, each by name."""
    layer = -1
    if row.name.startswith("blk."):
        layer = int(row.name.split(".")[1])
    return layer, row.name.encode()  # bytes: C++ compares by them


def _encoded(row: _Row, weights: Weights, config: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """The bytes of a tensor in pieces, each uint8 `[n_bytes]`."""
    if row.source is None:
        yield llama3_rope_factors(rope_of(config), head_dim(config)).view(np.uint8)
        return
    arch, source = GGUF_ARCHITECTURES[config["model_type"]], row.source
    stored = weights.stored(source)
    if heads := permuted_heads(arch, row.name, config):
        stored = permute(stored, heads)

    def loaded(first: int = 0, last: int | None = None) -> np.ndarray:
        if weights.specs[source].dtype == "BF16":
            return bf16_to_f32(stored[first:last])
        return stored[first:last]

    if row.type == Type.F32:
        shift = np.float32(norm_shift(arch, row.name))
        yield (np.ascontiguousarray(loaded(), dtype=np.float32) + shift).reshape(-1).view(np.uint8)
        return
    if row.type == Type.F16:
        for first, last in slices(row.shape):
            yield np.ascontiguousarray(to_storage(loaded(first, last), "F16", source)).reshape(-1).view(np.uint8)
        return

    def rows(first: int, last: int) -> np.ndarray:
        # by way of float16, so that the file is what llama-quantize makes of our float16 file
        return to_storage(loaded(first, last), "F16", source).astype(np.float32)

    yield quantize(rows, (row.shape[0], row.shape[1]), row.type)
