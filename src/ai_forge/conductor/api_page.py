"""The API reference, made of the OpenAPI description: Markdown for `docs/api.md`, HTML for `/docs`.

Each endpoint has a curl line that runs as it stands; a test runs them all. What stands in it comes from the examples in the
description, so a route without one shows at once.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

__all__ = ["api_html", "api_markdown", "curl_of", "operations"]

HEAD = """# API

Made of the service's OpenAPI description (`/openapi.json`; `/docs` shows this page). `ai-forge serve` listens on
http://127.0.0.1:8000. Where keys are demanded, each request brings one: `-H "Authorization: Bearer $AI_FORGE_KEY"`, made by
`ai-forge keys add NAME --scope chat`. In the lines below `JOB_ID`, `RUN_ID` and `MODEL` are variables of your shell.

Errors of our routes are `{"error": {"code", "message", "next_step", "request_id"}}`, those of the OpenAI routes as OpenAI's:
`{"error": {"message", "type", "param", "code"}}`. 400 and 422: the request; 401, 403: the key; 404: what is named; 409: not now;
413, 429: too much; 503, 507: the machine, try again.
"""
METHODS = ("get", "post", "put", "patch", "delete")
JsonSchema = Mapping[str, Any]


def operations(openapi: JsonSchema) -> list[tuple[str, str, JsonSchema]]:
    """(METHOD, path, operation) in the order of the description."""
    return [
        (method.upper(), path, item[method])
        for path, item in openapi["paths"].items()
        for method in METHODS
        if method in item
    ]


def curl_of(method: str, path: str, operation: JsonSchema, base_url: str = "http://127.0.0.1:8000") -> str:
    """The curl line of an operation: the example of its body, a shell variable for each id in its path."""
    words = ["curl"]
    if method != "GET":
        words += ["-X", method]
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            choices = parameter["schema"].get("enum")
            value = choices[0] if choices else f"${parameter['name'].upper()}"
            path = path.replace(f"{{{parameter['name']}}}", value)
    words.append(f'"{base_url}{path}"')
    content = operation.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        for name, value in content["multipart/form-data"]["example"].items():
            words += ["-F", shlex.quote(f"{name}={value}")]
    elif "example" in content.get("application/json", {}):
        words += ["-H", "'Content-Type: application/json'", "-d"]
        words.append(shlex.quote(json.dumps(content["application/json"]["example"], ensure_ascii=False)))
    return " ".join(words)


def api_markdown(openapi: JsonSchema) -> str:
    """The page."""
    parts = [HEAD]
    tag = None
    for method, path, operation in operations(openapi):
        if operation.get("tags", [None])[0] != tag:
            tag = operation["tags"][0]
            parts.append(f"\n## {tag}\n")
        parts.append(f"\n### {method} {path}\n\n{operation.get('description') or operation.get('summary', '')}\n")
        fields = _fields(operation, openapi)
        if fields:
            parts.append(
                "\n| field | type | default | what it is |\n| --- | --- | --- | --- |\n" + "\n".join(fields) + "\n"
            )
        parts.append(f"\n```sh\n{curl_of(method, path, operation)}\n```\n")
    return "".join(parts)


def _fields(operation: JsonSchema, openapi: JsonSchema) -> list[str]:
    rows = []
    for parameter in operation.get("parameters", ()):
        rows.append(_row(parameter["name"], parameter.get("schema", {}), parameter.get("required", False), parameter))
    for body in operation.get("requestBody", {}).get("content", {}).values():
        schema = body.get("schema", {})
        if "$ref" in schema:
            schema = openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        needed = schema.get("required", ())
        rows += [_row(name, field, name in needed, field) for name, field in schema.get("properties", {}).items()]
    return rows


def _row(name: str, schema: JsonSchema, required: bool, described: JsonSchema) -> str:
    default = "required" if required else json.dumps(schema.get("default"))
    what = str(described.get("description", "")).replace("|", "\\|").replace("\n", " ")
    return f"| `{name}` | {_type(schema)} | {default} | {what} |"


def _type(schema: JsonSchema) -> str:
    if "anyOf" in schema:
        kinds = [_type(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return ", ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type", "any"))


def api_html(openapi: JsonSchema) -> str:
    """The page for a browser: no script, nothing from elsewhere."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(api_markdown(openapi))
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "pre{background:#f4f4f4;padding:.8rem;overflow-x:auto}table{border-collapse:collapse}"
        "td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:left}"
        "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}pre{background:#222}}"
    )
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>AI Forge API</title><style>{style}</style>'
    return f"{head}<main>{body}</main></html>"
