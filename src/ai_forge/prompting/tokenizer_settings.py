"""`tokenizer_config.json` of a model folder, with what stands beside it, read as transformers reads it.

    chat_template.jinja       wins over the config's template
    special_tokens_map.json   wins over the config's special tokens, where the config lists no added tokens of its own

Several named templates count as the one named "default". Source: transformers 5 `tokenization_utils_base.py`
(`_from_pretrained`, `get_chat_template`); that one also reads `additional_chat_templates/`, whose templates are never
the default.
"""

import json
from collections.abc import Callable
from pathlib import Path

from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject

SETTINGS, TEMPLATE, SPECIAL_TOKENS_MAP = "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"
# what the tokenizer classes of the trained families say of themselves; the class is named in the config
CLASS_DEFAULTS: dict[str, dict[str, str]] = {
    "Llama": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "Gemma": {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"},
    "Qwen2": {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    "GPT2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
}


def tokenizer_settings(folder: Path, has_token: Callable[[str], bool] = lambda _: False) -> JsonObject:
    """The settings, with the special tokens as text and `chat_template` a string or absent.

    `has_token` tells which tokens the vocabulary has: only those are taken from the tokenizer class.

    Raises:
        InputError: a file is missing or is no JSON object.
    """
    settings = read_json_object(folder / SETTINGS)
    name = str(settings.get("tokenizer_class", "")).removesuffix("Fast").removesuffix("Tokenizer")
    of_class = {key: token for key, token in CLASS_DEFAULTS.get(name, {}).items() if has_token(token)}
    settings = of_class | settings
    if "added_tokens_decoder" not in settings and (folder / SPECIAL_TOKENS_MAP).is_file():
        settings |= read_json_object(folder / SPECIAL_TOKENS_MAP)
    for key, value in settings.items():
        if key.endswith("_token") and isinstance(value, dict):  # an AddedToken with its flags
            settings[key] = value.get("content")
    template = settings.pop("chat_template", None)
    if isinstance(template, list):  # several, named
        template = {row.get("name"): row.get("template") for row in template if isinstance(row, dict)}
    if isinstance(template, dict):
        template = template.get("default")
    if (folder / TEMPLATE).is_file():
        template = (folder / TEMPLATE).read_text(encoding="utf-8")
    if isinstance(template, str):
        settings["chat_template"] = template
    return settings


def read_json_object(path: Path) -> JsonObject:
    """The object in the JSON file at `path`. Raises `InputError` where it holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object.")
    return value
