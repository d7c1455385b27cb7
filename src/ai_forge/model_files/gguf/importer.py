"""A GGUF becomes a Hugging Face style folder, once: dequantised, renamed, q and k put back in order.

Method: tensors stream from the memory map through numpy to safetensors, one at a time. Quantised types become float16,
BF16 stays bfloat16, F16 float16, F32 float32. What is dequantised is what llama.cpp computes with, so a model trained
on this folder starts from the very weights that its GGUF runs.

Measured on SmolLM2-135M Q4_1 (98 MB → 270 MB, 2 cores): 1.8 s with the tokenizer; transformers' loader takes 30 s.
Rounding dequantised weights to float16 costs at most 2^-11 of each weight, a hundredth of the quantisation step.
Other types than the eleven below (I-quants, ternary, MXFP4) are refused by name.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.architectures import expected_shapes, hf_name, norm_shift, permuted_heads, unpermute
from ai_forge.model_files.gguf.config import config_from_gguf
from ai_forge.model_files.gguf.metadata import encode_header
from ai_forge.model_files.gguf.reader import GGUFFile, GGUFTensor
from ai_forge.model_files.tensors import STORAGE, WEIGHTS_NAME, TensorSpec, to_storage, write_safetensors
from ai_forge.model_files.tokenizers.gguf_tokenizer import write_tokenizer
from ai_forge.prompting.chat_templates import JINJA, family_of

PLAIN = {Type.F32: "F32", Type.F16: "F16", Type.BF16: "BF16"}
QUANTIZED = (Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q4_K, Type.Q5_K, Type.Q6_K)
ROPE_FREQS = "rope_freqs.weight"
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
# of a head that repeats the embedding, each quantised in its own way: Q4_K and Q6_K of Qwen2.5-Coder differ by 0.07, two
# matrices that were trained apart by more than 1
SAME_MATRIX = 0.25
COMPARED_ROWS = 64
# the file's tokenizer metadata, byte for byte, for the export of what is trained on it
TOKENIZER_GGUF = "tokenizer.gguf"
CHUNK_ELEMENTS = 16 * 1024 * 1024  # 64 MB of float32


def check_convertible(file: GGUFFile) -> JsonObject:
    """The `config.json` that the file will get, after every check that can fail. Writes nothing.

    Raises:
        InputError: other architecture, unknown tensor type, missing or surplus tensors, wrong shapes, no vocabulary.
    """
    for tensor in file.tensors.values():
        if tensor.type not in PLAIN and tensor.type not in QUANTIZED:
            allowed = ", ".join(kind.name for kind in (*PLAIN, *QUANTIZED))
            raise InputError(
                f"{file.path}: tensor {tensor.name} is of type {tensor.type.name}; readable are {allowed}.",
                "use another quantisation of the model, for example Q8_0 or Q4_K_M.",
            )
    tokens = file.metadata.get("tokenizer.ggml.tokens", [])
    embedding = file.tensors.get(EMBEDDING)
    if embedding is None:
        raise InputError(f"{file.path} has no token_embd.weight: it is not a whole language model.")
    freqs = file.tensors.get(ROPE_FREQS)
    config = config_from_gguf(
        file.metadata,
        vocab_size=embedding.shape[0],
        tied=HEAD not in file.tensors or repeats_embedding(file),
        rope_freqs=read_tensor(file, freqs).ravel() if freqs else None,
    )
    if config["model_type"] == "llama":
        biased = [hf_name(name, file.architecture) or "" for name in file.tensors if name.endswith(".bias")]
        config["attention_bias"] = any(".self_attn." in name for name in biased)
        config["mlp_bias"] = any(".mlp." in name for name in biased)
    if len(tokens) > embedding.shape[0]:
        raise InputError(f"{file.path} has {len(tokens)} tokens but only {embedding.shape[0]} embeddings.")
    _check_tensors(file, config)
    for role in ("bos", "eos"):
        if (index := file.metadata.get(f"tokenizer.ggml.{role}_token_id")) is not None:
            config[f"{role}_token_id"] = index
    # o_proj: a matrix that every architecture has, while vectors are float32 beside any type
    stored = next(spec.dtype for _, spec in _plan(file) if spec.name.endswith("o_proj.weight"))
    config["dtype"] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[stored]
    return config


def convert_gguf(file: GGUFFile, folder: Path, template: str | None = None) -> None:
    """Fills `folder` (which exists and is empty) with config, weights and tokenizer.

    `template` is the Go template beside the file, if any: where the GGUF has no Jinja one it tells the family.
    Making the folder appear whole is the caller's part.
    """
    config = check_convertible(file)
    plan = _plan(file)
    metadata = dict(file.metadata)
    if not metadata.get("tokenizer.chat_template") and template:
        metadata["tokenizer.chat_template"] = JINJA[family_of(template)]
    write_tokenizer(folder, metadata)
    tokenizer = {key: raw for key, raw in file.raw_values.items() if key.startswith("tokenizer.")}
    (folder / TOKENIZER_GGUF).write_bytes(encode_header(tokenizer, []))
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    # llama.cpp takes each bias alone, transformers all or none: those that the file lacks become zeros
    found = {spec.name for _, spec in plan}
    missing = {name: shape for name, shape in expected_shapes(config).items() if name not in found}
    biases = [TensorSpec(name, "F32", shape) for name, shape in missing.items() if name.endswith(".bias")]
    zeros = ((spec, np.zeros(spec.shape, dtype=np.float32)) for spec in biases)
    values = itertools.chain(_converted(file, plan, config), zeros)
    write_safetensors(folder / WEIGHTS_NAME, values, [*(spec for _, spec in plan), *biases])


def converted_bytes(file: GGUFFile) -> int:
    """Bytes that the folder's weights will take."""
    return sum(spec.n_bytes for _, spec in _plan(file))


def read_tensor(file: GGUFFile, tensor: GGUFTensor) -> np.ndarray:
    """A tensor as float32, in its stored row order."""
    raw = file.raw(tensor.name)
    if tensor.type in PLAIN and tensor.type != Type.BF16:
        return raw.view(STORAGE[PLAIN[tensor.type]]).astype(np.float32).reshape(tensor.shape)
    return np.asarray(dequantize(raw, tensor.type), dtype=np.float32).reshape(tensor.shape)


def repeats_embedding(file: GGUFFile) -> bool:
    """Whether a head of its own is the embedding again: some tools write a tied head a second time, in a finer type.

    Rows over the whole vocabulary are compared, up to what quantisation takes from each.
    """
    embedding, head = file.tensors.get(EMBEDDING), file.tensors.get(HEAD)
    if embedding is None or head is None or embedding.shape != head.shape:
        return False
    if any(tensor.type not in PLAIN and tensor.type not in QUANTIZED for tensor in (embedding, head)):
        return False  # which is refused elsewhere, by name
    step = max(1, head.shape[0] // COMPARED_ROWS)
    ours, other = (_some_rows(file, tensor, step) for tensor in (embedding, head))
    distance, size = float(np.linalg.norm(ours - other)), float(np.linalg.norm(other))
    return distance <= SAME_MATRIX * size


def _some_rows(file: GGUFFile, tensor: GGUFTensor, step: int) -> np.ndarray:
    """Every `step`-th row as float32."""
    rows = file.raw(tensor.name).reshape(tensor.shape[0], -1)[::step]
    if tensor.type in PLAIN and tensor.type != Type.BF16:
        return np.ascontiguousarray(rows).view(STORAGE[PLAIN[tensor.type]]).astype(np.float32)
    return np.asarray(dequantize(np.ascontiguousarray(rows), tensor.type), dtype=np.float32)


def _plan(file: GGUFFile) -> list[tuple[GGUFTensor, TensorSpec]]:
    """Source and target of every tensor that the folder gets, in file order; of a repeated head the finer copy alone."""
    sources = dict(file.tensors)
    if repeats_embedding(file):
        copies = [sources[EMBEDDING], sources.pop(HEAD)]
        sources[EMBEDDING] = max(copies, key=lambda tensor: file.raw(tensor.name).nbytes)
    plan = []
    for named, tensor in sources.items():
        name = hf_name(named, file.architecture)
        if name is not None:
            plan.append((tensor, TensorSpec(name, PLAIN.get(tensor.type, "F16"), tensor.shape)))
    return plan


def _converted(
    file: GGUFFile, plan: list[tuple[GGUFTensor, TensorSpec]], config: JsonObject
) -> Iterator[tuple[TensorSpec, np.ndarray]]:
    for tensor, spec in plan:
        heads = permuted_heads(file.architecture, tensor.name, config)
        if shift := norm_shift(file.architecture, tensor.name):
            # a vector: small enough to be read whole
            values = to_storage(read_tensor(file, tensor) - np.float32(shift), spec.dtype, spec.name)
        elif tensor.type in PLAIN:
            values = file.raw(tensor.name).view(STORAGE[spec.dtype]).reshape(tensor.shape)
        else:
            values = _dequantized(file, tensor, spec)
        if heads is not None:
            values = unpermute(values, heads)
        yield spec, values
        file.advise_done(tensor.name)


def _dequantized(file: GGUFFile, tensor: GGUFTensor, spec: TensorSpec) -> np.ndarray:
    """float16 of a quantised matrix, a slice of rows at a time: the float32 in between stays small."""
    rows = file.raw(tensor.name).reshape(tensor.shape[0], -1)
    values = np.empty(tensor.shape, dtype=np.float16)
    step = max(1, CHUNK_ELEMENTS // tensor.shape[-1])
    for start in range(0, tensor.shape[0], step):
        part = dequantize(rows[start : start + step], tensor.type)
        values[start : start + step] = to_storage(part, "F16", spec.name)
    return values


def _check_tensors(file: GGUFFile, config: JsonObject) -> None:
    # before the names are listed: a damaged header may claim billions of layers
    if not 1 <= config["num_hidden_layers"] <= len(file.tensors):
        raise InputError(
            f"{file.path} claims {config['num_hidden_layers']} layers but holds {len(file.tensors)} tensors."
        )
    expected = expected_shapes(config)
    found = {spec.name: spec.shape for _, spec in _plan(file)}
    unplanned = {ROPE_FREQS, HEAD} if config["tie_word_embeddings"] else {ROPE_FREQS}  # a tied head stands for both
    surplus = [t for t in file.tensors if t not in unplanned and hf_name(t, file.architecture) not in expected]
    # only a Llama's may be left out: they become zeros
    optional = (".bias",) if config["model_type"] == "llama" else ()
    if missing := [name for name in expected if name not in found and not name.endswith(optional)]:
        raise InputError(f"{file.path} lacks {len(missing)} tensors, first {missing[0]}.", "download the file again.")
    if surplus:
        raise InputError(
            f"{file.path} has {len(surplus)} tensors that {config['model_type']} has not, first {surplus[0]}."
        )
    for name, shape in expected.items():
        if found.get(name, shape) != shape:
            raise InputError(f"{file.path}: {name} has shape {found[name]}, its settings say {shape}.")
