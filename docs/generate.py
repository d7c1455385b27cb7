"""Write the generated parts of README and docs: settings, recipes, memory, hardware, Macs.

    python docs/generate.py                    rewrite every marked part (`make docs`)
    python docs/generate.py --print hardware   print one table

A marked part lies between `<!-- generated: NAME -->` and `<!-- end -->`. Everything comes from the settings models,
`models.yaml`, `apple_defaults.yaml`, and `training/memory.py`; nothing is loaded, measured or
fetched. A test checks that the files are current.
"""

import argparse
import ast
import json
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ai_forge.conductor.api_page import api_markdown
from ai_forge.conductor.service import ServiceContext, create_app
from ai_forge.config import FineTuneConfig, Settings, load_recipes, load_settings
from ai_forge.config.models import load_models
from ai_forge.pipeline.recipes import RECIPES
from ai_forge.training.apple import MLX_LM_MODULES, apple_defaults
from ai_forge.training.memory import memory_of, mlx_memory_of
from ai_forge.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

SHAPES = {  # hidden, layers, heads, key/value heads, intermediate, vocabulary, tied: the published config.json
    "SmolLM2-135M-Instruct": (576, 30, 9, 3, 1536, 49152, True),
    "SmolLM2-360M-Instruct": (960, 32, 15, 5, 2560, 49152, True),
    "SmolLM2-1.7B-Instruct": (2048, 24, 32, 32, 8192, 49152, True),
    "Llama-3.2-1B-Instruct": (2048, 16, 32, 8, 8192, 128256, True),
    "Llama-3.2-3B-Instruct": (3072, 28, 24, 8, 8192, 128256, True),
    "Llama-3.1-8B-Instruct": (4096, 32, 32, 8, 14336, 128256, False),
    "Llama-3-8B-Instruct": (4096, 32, 32, 8, 14336, 128256, False),
    "Qwen2.5-Coder-0.5B-Instruct": (896, 24, 14, 2, 4864, 151936, True),
    "Qwen2.5-Coder-1.5B-Instruct": (1536, 28, 12, 2, 8960, 151936, True),
    "Qwen2.5-Coder-3B-Instruct": (2048, 36, 16, 2, 11008, 151936, True),
    "Qwen2.5-Coder-7B-Instruct": (3584, 28, 28, 4, 18944, 152064, False),
    "Qwen3-0.6B": (1024, 28, 16, 8, 3072, 151936, True),
    "Qwen3-1.7B": (2048, 28, 16, 8, 6144, 151936, True),
    "Qwen3-4B": (2560, 36, 32, 8, 9728, 151936, True),
    "Qwen3-8B": (4096, 36, 32, 8, 12288, 151936, False),
    "Mistral-7B-Instruct-v0.3": (4096, 32, 32, 8, 14336, 32768, False),
    "Phi-3-mini-4k-instruct": (3072, 32, 32, 32, 8192, 32064, False),
    "gemma-2-2b-it": (2304, 26, 8, 4, 9216, 256000, True),
    "gemma-2-9b-it": (3584, 42, 16, 8, 14336, 256000, True),
    "gemma-3-270m-it": (640, 18, 4, 1, 2048, 262144, True),
    "gemma-3-1b-it": (1152, 26, 4, 1, 6912, 262144, True),
}
HEAD_DIM = {"qwen3": 128, "gemma2": 256, "gemma3_text": 256}
"""Units of a head where they are not the hidden width divided by the heads."""
SHORT = {"micro_batch_size": 1, "max_seq_len": 1024}
"""Settings for short memory: a quarter of the activations."""
SHARE = 0.75
"""Share of a machine's memory that training may take: the rest belongs to the system and to whoever works on it."""
BF16, FP32, CUDA, MLX = "CPU, bf16", "CPU, float32", "NVIDIA", "Apple, MLX"
HELD: dict[str, dict[str, Any]] = {BF16: {}, FP32: {"dtype_bytes": 4}, CUDA: {"packed_nf4": True}, MLX: {}}
"""How each kind of machine holds weights and activations; a CPU computes in bf16 only where it multiplies it natively."""
KEPT_OR_AGAIN: dict[str, dict[str, Any]] = {"kept": {"gradient_checkpointing": "off"}, "again": {}}
WAYS = {BF16: KEPT_OR_AGAIN, FP32: KEPT_OR_AGAIN, CUDA: KEPT_OR_AGAIN, MLX: {"again": {}, "short": SHORT}}
"""Columns of the memory table: activations kept or computed again, and for MLX, whose scores outweigh them, short settings."""
HARDWARE = (
    *((f"Apple M1–M4, {size} GB", size, MLX) for size in (8, 16, 24, 32, 64)),
    *((f"NVIDIA, {size} GB", size, CUDA) for size in (8, 12, 16, 24, 48, 80)),
    *((f"CPU with bf16, {size} GB", size, BF16) for size in (8, 16, 32, 64)),
    *((f"CPU without bf16, {size} GB", size, FP32) for size in (8, 16, 32, 64)),
)


def table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    heads = list(headings)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def shown(value: Any) -> str:
    """A default as a YAML file would hold it.

    >>> shown(None), shown(True), shown(("a", "b")), shown(2e-4)
    ('null', 'true', '[a, b]', '0.0002')
    """
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def allowed(field: FieldInfo) -> str:
    """The values that a setting takes, from its type and its constraints."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in signs.items()
        if hasattr(rule, name)
    ]
    kinds = {"bool": "true, false", "str": "text"}
    name = getattr(annotation, "__name__", "")
    return ", ".join(limits) or kinds.get(name, "list" if get_origin(annotation) is tuple else "")


def settings() -> str:
    """Every setting: key, default, allowed values, meaning."""
    defaults = Settings()
    parts = []
    for part, outer in Settings.model_fields.items():
        model = outer.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        rows = [
            (f"`{part}.{key}`", f"`{shown(getattr(getattr(defaults, part), key))}`", allowed(field), field.description)
            for key, field in model.model_fields.items()
        ]
        parts.append(f"### {part}\n\n{table(('setting', 'default', 'allowed', 'meaning'), rows)}")
    return "\n\n".join(parts)


def recipes() -> str:
    """What the bases of `models.yaml` and the recipes of `recipes.yaml` set differently."""
    found = {name: entry.recipe for name, entry in load_models().models.items()}
    found |= {f"`--recipe {name}`": recipe for name, recipe in load_recipes().items()}
    rows = [
        (name, f"`{key}`", f"`{shown(tuple(value) if isinstance(value, list) else value)}`")
        for name, recipe in found.items()
        for key, value in recipe.items()
    ]
    return table(("base or recipe", "setting", "value"), rows)


def config_of(name: str, **changes: Any) -> FineTuneConfig:
    """The training settings that a base gets when nothing else is asked for."""
    loaded = load_settings(("flag", {"training.base_model": name}))
    return loaded.settings.training.model_copy(update=changes)


def shape_of(name: str) -> dict[str, Any]:
    """The parts of a named base's `config.json` that memory depends on."""
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    architecture = load_models().models[name].architecture
    shape = dict(zip((*keys, "vocab_size", "tie_word_embeddings"), SHAPES[name], strict=True))
    return shape | {"model_type": architecture, "head_dim": HEAD_DIM.get(architecture)}


def served(name: str, kind: str) -> bool:
    """Whether a kind of machine trains this base."""
    return kind != MLX or load_models().models[name].architecture in MLX_LM_MODULES


def gigabytes(name: str, kind: str, **changes: Any) -> float:
    """Estimated peak of training a base on a kind of machine, GB."""
    shape = shape_of(name)
    if kind == MLX:
        return sum(mlx_memory_of(shape, config_of(name, **changes)).values()) / 1e9
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(shape), encoding="utf-8")
        return sum(memory_of(Path(folder), config_of(name, **changes), **HELD[kind]).values()) / 1e9


def memory() -> str:
    """The estimate for every named base."""
    columns = [(f"{kind}, {way}", kind, changes) for kind in HELD for way, changes in WAYS[kind].items()]

    def cell(name: str, kind: str, changes: dict[str, Any]) -> str:
        return f"{gigabytes(name, kind, **changes):.1f}" if served(name, kind) else "–"

    rows = [(name, *(cell(name, kind, changes) for _, kind, changes in columns)) for name in SHAPES]
    return table(("base", *(heading for heading, *_ in columns)), rows)


def largest(limit: float, kind: str, **changes: Any) -> str:
    """The largest named base that fits into `limit` GB."""
    known = load_models().models
    fitting = [name for name in SHAPES if served(name, kind) and gigabytes(name, kind, **changes) <= limit]
    return max(fitting, key=lambda name: known[name].parameters) if fitting else "none"


def apple() -> str:
    """The settings for Macs, with what they need by the formula."""
    rows = []
    for row in apple_defaults():
        needed = mlx_memory_of(shape_of(row.config.base_model), row.config)
        largest_parts = sorted(needed.items(), key=lambda item: -item[1])[:3]
        rows.append(
            (
                f"{row.memory_gb} GB",
                f"`{row.flags}`",
                f"{sum(needed.values()) / 1e9:.1f}",
                ", ".join(f"{name} {size / 1e9:.1f}" for name, size in largest_parts),
            )
        )
    return table(("memory", "settings", "training needs, GB", "mostly"), rows)


def hardware() -> str:
    """The largest named base that trains on a machine."""
    rows = [
        (label, *(largest(SHARE * size, kind, **changes) for changes in ({}, SHORT))) for label, size, kind in HARDWARE
    ]
    return table(("machine", "largest base", "with short settings"), rows)


def imports() -> dict[str, set[str]]:
    """Module → the modules of AI Forge that its text imports, in functions and for types as well."""
    source = ROOT / "src"
    files = {path: ".".join(path.relative_to(source).with_suffix("").parts) for path in source.rglob("*.py")}
    modules = {name.removesuffix(".__init__") for name in files.values()}
    found: dict[str, set[str]] = {}
    for path, name in files.items():
        targets = found.setdefault(name.removesuffix(".__init__"), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ai_forge"):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= (inner & modules) or {node.module}
    return found


def contract(name: str) -> dict[str, Any]:
    """An import contract of pyproject.toml."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts: list[dict[str, Any]] = content["tool"]["importlinter"]["contracts"]
    return next(one for one in contracts if one["name"] == name)


def layers_drawn(name: str) -> str:
    """A contract of layers as a picture: its layers from top to bottom, and who really imports whom.

    Where one reaches another through a third, the direct arrow is left out.
    """
    rule = contract(name)
    prefix = f"{rule['containers'][0]}." if "containers" in rule else "ai_forge."
    members = [re.split(r" [|:] ", layer) for layer in rule["layers"]]
    names = [member.removeprefix("ai_forge.") for layer in members for member in layer]
    edges: dict[str, set[str]] = {one: set() for one in names}
    for module, targets in imports().items():
        source = module.removeprefix(prefix).split(".")[0]
        for target in targets:
            other = target.removeprefix(prefix).split(".")[0]
            # a document's schema is plain data that prompting may know, see the contract
            is_data = (source, other) == ("prompting", "data_pipeline")
            if source in edges and other in edges and source != other and not is_data:
                edges[source].add(other)

    def reached(start: str) -> set[str]:
        found, waiting = set[str](), [start]
        while waiting:
            for following in edges[waiting.pop()] - found:
                found.add(following)
                waiting.append(following)
        return found

    lines = ["```mermaid", "flowchart TD"]
    for source in names:
        others = edges[source]
        direct = {other for other in others if not any(other in reached(third) for third in others - {other})}
        lines += [f"  {source} --> {other}" for other in names if other in direct]
    return "\n".join([*lines, "```"])


def parts() -> str:
    """The parts of the package."""
    return layers_drawn("Parts")


def rooms() -> str:
    """The rooms of the data pipeline."""
    return layers_drawn("Rooms of the data pipeline")


def stages() -> str:
    """What each stage of the recipe `repository` needs, drawn; and the stages that are another recipe's own."""
    lines = ["```mermaid", "flowchart LR"]
    for stage in RECIPES["repository"].stages:
        name = f"{stage.name}([{stage.name}])" if stage.resumable else stage.name
        lines += [f"  {need} --> {name}" for need in stage.needs] or [f"  source[(repository)] --> {name}"]
    return "\n".join([*lines, "```"])


def api() -> str:
    """Every route of the service with a curl line."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(ServiceContext(Workspace.open(Path(folder)), Settings()))
        return api_markdown(app.openapi())


PARTS: dict[str, Callable[[], str]] = {
    "api": api,
    "parts": parts,
    "rooms": rooms,
    "stages": stages,
    "settings": settings,
    "recipes": recipes,
    "memory": memory,
    "hardware": hardware,
    "apple": apple,
}


def rendered(text: str) -> str:
    """`text` with its marked parts made anew."""
    return MARKED.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}\n{match[3]}", text)


def pages() -> list[Path]:
    """The files that may hold marked parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> None:
    """Rewrite the pages, or print one table."""
    parser = argparse.ArgumentParser(description="Write the generated parts of the documentation.")
    parser.add_argument("--print", choices=PARTS, help="print this table and change nothing")
    name = parser.parse_args().print
    if name:
        print(PARTS[name]())
        return
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = rendered(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
