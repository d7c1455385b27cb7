"""Chat templates rendered as transformers renders them, in a sandbox: they come with models and are not trusted."""

import datetime
import functools
import json
from collections.abc import Callable
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class GenerationBlock(Extension):
    """`{% generation %}`, by which transformers finds the assistant's tokens: what stands inside is rendered as it is.

    A call block as there, not a plain one: what is set inside is not seen outside.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2's own form

    def parse(self, parser: Parser) -> nodes.Node:
        """Everything up to `{% endgeneration %}`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_rendered"), [], [], body).set_lineno(line)

    @staticmethod
    def _rendered(caller: Callable[[], str]) -> str:
        return caller()


@functools.lru_cache(maxsize=16)  # a training renders one template for each of its examples
def compiled(template: str) -> Template:
    """`template`, ready to render. It may `break` out of loops, call `raise_exception` and print today's date.

    Raises:
        jinja2.TemplateError: it is no template.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        return environment.from_string(template)
    except RecursionError as error:
        raise TemplateError("it nests too deep") from error


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)  # jinja's own escapes HTML, which no model was taught


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
