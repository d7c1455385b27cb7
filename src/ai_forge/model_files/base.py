"""What a model that can be trained looks like on disk: a folder with weights, config and tokenizer, checked.

    folder/  config.json  *.safetensors  tokenizer.json  tokenizer_config.json  [chat_template.jinja]

Whether the folder came from a hub, a GGUF file or Ollama is `Origin`; how a name becomes a `Base` is `training.bases`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.architectures import ARCHITECTURES, completed, context_of, expected_shapes, unserved
from ai_forge.model_files.tensors import Weights
from ai_forge.prompting.tokenizer_settings import SETTINGS, read_json_object, tokenizer_settings

Kind = Literal["wheel", "hub", "folder", "gguf", "ollama"]
# names that tell of bits: of a quantised copy, not of the original
QUANTIZED_NAME = re.compile(r"(?i)(awq|gptq|bnb|nf4|fp8|gguf|mlx|w\d+a\d+|int-?[48]|\d-?bits?)\b")


SIZES = {"num_hidden_layers": 1000} | dict.fromkeys(
    ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim"), 2**24
)
"""Settings of a model's size and the most that any may be: no model that there is comes near."""


@dataclass(frozen=True)
class Origin:
    """Where a base came from. `lossy` means that its weights were quantised before AI Forge saw them."""

    kind: Kind
    description: str
    lossy: bool = False
    quantization: str | None = None
    sha256: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Base:
    """A model ready to train: `folder` holds config.json, safetensors, tokenizer.json and tokenizer_config.json.

    `fingerprint` is a hash of weights, tokenizer, template and config: the same weights from two places are one base.
    `gguf_metadata` is the GGUF header with the source's tokenizer, where there was one: export carries it over.
    `training` are the registry's recommended overrides for this model, empty for others.
    """

    name: str
    folder: Path
    fingerprint: str
    origin: Origin
    architecture: str
    n_parameters: int
    context_length: int
    gguf_metadata: Path | None
    training: Mapping[str, Any]

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template, or None for a model that was never taught to chat."""
        return chat_template(self.folder)


def check_folder(folder: Path) -> JsonObject:
    """The `config.json` of a Hugging Face style folder, after checking that the folder can be trained.

    Raises:
        InputError: no config, weights or tokenizer; another architecture or attention; quantised or missing weights.
    """
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} has no config.json: it is not a model folder.", "name the folder that holds the weights."
        )
    config = read_json_object(folder / "config.json")
    if str(config.get("model_type")) not in ARCHITECTURES:
        raise InputError(
            f"{folder} is of architecture {config.get('model_type')!r}; AI Forge trains {', '.join(ARCHITECTURES)}.",
            "choose another base: ai-forge models.",
        )
    config = completed(config)
    _require_sizes(folder / "config.json", config)
    try:
        if what := unserved(config):
            raise InputError(
                f"{folder} has {what}, which AI Forge does not compute exactly.",
                "choose another base: ai-forge models.",
            )
        expected = expected_shapes(config)
        context_of(config)
    except KeyError as error:
        raise InputError(f"{folder / 'config.json'} lacks the setting {error}.", "download the model again.") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise InputError(
            f"{folder / 'config.json'} has a setting of a wrong kind: {error}.", "download the model again."
        ) from error
    if config.get("quantization_config"):  # before the weights: theirs are packed, and would be refused for their type
        raise _quantized(folder, config)
    weights = Weights(folder)
    if not (folder / "tokenizer.json").is_file():
        raise InputError(
            f"{folder} has no tokenizer.json.", "save the tokenizer there with tokenizer.save_pretrained(folder)."
        )
    if not (folder / "tokenizer_config.json").is_file():
        raise InputError(
            f"{folder} has no tokenizer_config.json: nothing says how a chat is written.",
            "download it with the weights, or choose the instruct version of the base.",
        )
    # what is there beside these (rotary frequencies, a second head) is the exporter's to judge
    for tensor, shape in expected.items():
        spec = weights.specs.get(tensor)
        if spec is None:
            raise InputError(f"{folder} lacks the tensor {tensor}.", "download the model again.")
        if spec.shape != shape:
            raise InputError(f"{folder}: {tensor} has shape {spec.shape}, config.json says {shape}.")
    return config


def _require_sizes(path: Path, config: Mapping[str, Any]) -> None:
    """Before anything is laid out by them: one digit too many is a table that fills the memory."""
    for name, most in SIZES.items():
        value = config.get(name)
        if value is not None and not (type(value) is int and 1 <= value <= most):
            raise InputError(
                f"{path}: {name} is {str(value)[:40]}; it is a whole number from 1 to {most}.",
                "download the model again.",
            )


def _quantized(folder: Path, config: Mapping[str, Any]) -> InputError:
    """The refusal of quantised weights, with the full-precision repository where the config names one.

    Tools that quantise leave in `_name_or_path` what they read, or what they wrote: a name that tells of bits is no help.
    """
    settings = config["quantization_config"]
    weights = "quantised weights"
    if isinstance(settings, dict) and settings.get("quant_method"):
        weights += f" ({settings['quant_method']})"
    source = str(config.get("_name_or_path"))
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source)
    full = source if is_hub_id and not QUANTIZED_NAME.search(source) else "the unquantised version"
    return InputError(
        f"{folder} holds {weights}; a decomposition needs the full ones.",
        f"use {full}; training quantises by itself.",
    )


def chat_template(folder: Path) -> str | None:
    """The Jinja chat template of a model folder. Raises `InputError` where a file of the tokenizer is no JSON object."""
    if not (folder / SETTINGS).is_file():
        return None
    return tokenizer_settings(folder).get("chat_template")


def n_parameters(folder: Path) -> int:
    """How many numbers the weights in `folder` hold."""
    return sum(math.prod(spec.shape) for spec in Weights(folder).specs.values())
