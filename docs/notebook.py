"""Write docs/colab.ipynb: this project's run as a Colab notebook, from the cells below.

    python docs/notebook.py          (`make docs`)

A cell is prose, a script (`%%bash`) or a command (`!`, whose output is shown as a terminal shows it, with its progress). What can be
chosen stands in the first script. A test runs every script and command from top to bottom, with a tiny base on a CPU.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

NOTEBOOK = Path(__file__).parent / "colab.ipynb"
CHOICES = {
    "AI_FORGE": "",
    "REPOSITORY": "https://github.com/pallets/click",
    "BASE": "Qwen2.5-Coder-1.5B-Instruct",
    "SETTINGS": "",
    "QUESTION": "How do I ask the user for a password without showing it?",
    "RULES": "repository",
}
"""Written into the first script; a variable that is set already keeps its value."""

_CHOOSE = "\n".join(
    [
        "cat > forge.env <<'END'",
        *(f'export {name}="${{{name}:-{value}}}"' for name, value in CHOICES.items()),
        "export AI_FORGE_HOME=$PWD/forge-home",
        "END",
        "cat forge.env",
    ]
)
Kind = Literal["markdown", "script", "command"]
CELLS: tuple[tuple[Kind, str], ...] = (
    (
        "markdown",
        """# AI Forge on Colab

Fine-tunes a code model on a repository, measures whether it helped, and leaves a GGUF file that Ollama runs. Choose *Runtime → Change
runtime type → T4 GPU* first. Nothing of the repository leaves this machine, and nothing of the machine outlasts the session: take
the files home at the end.

Made by `docs/notebook.py`; each cell is what you would type into a terminal. **Not yet run on a T4.**""",
    ),
    (
        "markdown",
        """## What to train on

`AI_FORGE` is what pip installs AI Forge from: the address of its repository (`git+https://…`) or a wheel that you uploaded; leave it
empty where `ai-forge` is there already. `REPOSITORY` is an address to clone or a folder. With `BASE=SmolLM2-135M-Instruct` all is
through in minutes, and the answers are those of a very small model. `SETTINGS` are further flags, such as
`--set synthesis.natural_questions=420`.""",
    ),
    ("script", _CHOOSE),
    ("markdown", "## Install, and what this machine can do"),
    (
        "script",
        """. ./forge.env
if [ -n "$AI_FORGE" ]; then pip install --quiet "ai-forge[torch] @ $AI_FORGE"; fi
if [ -d "$REPOSITORY" ]; then cp -r "$REPOSITORY" repository; else git clone --quiet "$REPOSITORY" repository; fi
ls repository""",
    ),
    ("command", "ai-forge doctor; true  # what is missing is told; what is needed, the next cells say themselves"),
    ("markdown", "## What it would do, and how long it would take"),
    ("command", 'ai-forge plan repository --base "$BASE" $SETTINGS'),
    (
        "markdown",
        """## Train, judge, export, deploy

A session that Colab ends can be continued: run the same cells again with the folder `forge-home` in its place (a mounted Drive,
say).""",
    ),
    ("command", 'ai-forge run repository --base "$BASE" $SETTINGS'),
    ("markdown", "## What was measured, against the base"),
    ("command", "cat $(ls -t forge-home/runs/*/report.md | head -1)"),
    ("markdown", "## Ask it"),
    ("command", 'ai-forge ask "$QUESTION" --repo repository'),
    (
        "markdown",
        """## An agent's rules

Where `RULES` is a folder with an `.agent` folder in it: its rules as pairs, baked into weights, judged by probes without a system
prompt.""",
    ),
    (
        "script",
        """. ./forge.env
if [ ! -d "$RULES/.agent" ] && [ ! -d "$RULES/.agents" ]; then echo "$RULES has no .agent folder: nothing to do"; exit 0; fi
ai-forge handbook "$RULES"
ai-forge run "$RULES" --recipe handbook --base "$BASE" $SETTINGS
ai-forge export "$RULES" --recipe handbook --base "$BASE" $SETTINGS
cat $(ls -t forge-home/runs/*/compliance.md | head -1)""",
    ),
    (
        "markdown",
        """## Take it home

A folder for each run: download it, then `ollama create my-model -f Modelfile` in it.""",
    ),
    (
        "script",
        """. ./forge.env
ai-forge export repository --base "$BASE" $SETTINGS
for file in forge-home/runs/*/Modelfile; do
  run=$(dirname "$file")
  folder=export/$(basename "$run")
  mkdir -p "$folder"
  cp -L "$run"/gguf/*.gguf "$folder"
  sed 's|^FROM .*/|FROM ./|' "$file" > "$folder/Modelfile"
done
ls -l export/*""",
    ),
)


def notebook() -> dict[str, Any]:
    """The notebook as nbformat 4.5 has it."""
    return {
        "cells": list(_cells()),
        "metadata": {
            "accelerator": "GPU",
            "colab": {"gpuType": "T4", "provenance": []},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def shell(kind: Kind, text: str) -> str:
    """What a shell is given for a script or a command: each cell is a shell of its own."""
    if kind == "command":
        return f". ./forge.env; {text}"
    return text


def _cells() -> Iterator[dict[str, Any]]:
    for number, (kind, text) in enumerate(CELLS, start=1):
        cell: dict[str, Any] = {"id": f"cell-{number}", "metadata": {}, "cell_type": "markdown"}
        if kind != "markdown":
            opening = "!" if kind == "command" else "%%bash\n"
            text = opening + shell(kind, text)
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        yield cell | {"source": text.splitlines(keepends=True)}


if __name__ == "__main__":
    NOTEBOOK.write_text(json.dumps(notebook(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
