"""Chat templates rendered as transformers renders them, in a sandbox: they come with models and are not trusted."""

import datetime
import json
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment


def compiled(template: str) -> Template:
    """`template`, ready to render. It may `break` out of loops, call `raise_exception` and print today's date.

    Raises:
        jinja2.TemplateError: it is no template.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(template)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)  # jinja's own escapes HTML, which no model was taught


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
