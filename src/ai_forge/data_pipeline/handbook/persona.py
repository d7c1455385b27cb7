"""Who a handbook's model is when it is served: the SYSTEM text and the stop words of its Modelfile, read from a file.

    persona = read_persona(persona_file("senior-dev"))      # the one that comes with the product
    persona = read_persona(Path("ours.yaml"))               # a team's own
    system, stops = persona.system, persona.stops(end_of_text="</s>")

The rules are in the weights; the SYSTEM text names the few that a user wants to see kept from the first word on.
"""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ai_forge.errors import InputError

__all__ = ["Persona", "persona_file", "read_persona"]

_MAX_BYTES = 64_000


class Persona(BaseModel):
    """`system` is Ollama's SYSTEM text, `stop` what ends an answer besides the base's own end of text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str = Field(min_length=1, max_length=8000)
    stop: tuple[str, ...] = Field(default=(), max_length=16)

    def stops(self, end_of_text: str = "") -> tuple[str, ...]:
        """All stop words, the base's end of text first, each once."""
        return tuple(dict.fromkeys(word for word in (end_of_text, *self.stop) if word))


def persona_file(name: str) -> Path | None:
    """The file that comes with the product for a model of this name, or None."""
    path = Path(__file__).parent / f"{name}.yaml"
    return path if "/" not in name and path.is_file() else None


def read_persona(path: Path) -> Persona:
    """A persona from a YAML file with `system` and `stop`. Raises InputError: it cannot be read, or is something else."""
    next_step = "Give a YAML file with the text `system` and the list `stop`."
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} has {path.stat().st_size} bytes; a persona has at most {_MAX_BYTES}.", next_step)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as YAML: {error}", next_step) from error
    try:
        return Persona.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise InputError(f"{path} is no persona: {problem}.", next_step) from error
