"""What Ollama's own OpenAI routes would do otherwise, asked through its native ones.

Its `/v1/completions` puts the prompt into the chat template; `/api/generate` with `raw` goes on with the text as it stands. Its chat
route cuts a prompt that is too long without a word; asking `/api/chat` for one token with `truncate: false` says so.
"""

from __future__ import annotations

import json
import secrets
import time

from ai_forge.json_lines import JsonObject

__all__ = ["GENERATE", "completion_of", "generate_body", "probe_body"]

GENERATE = "/api/generate"
OPTIONS = ("temperature", "top_p", "seed", "stop", "frequency_penalty", "presence_penalty")


def generate_body(sent: JsonObject) -> JsonObject:
    """A request of `/v1/completions` as one of `/api/generate`."""
    options = {name: sent[name] for name in OPTIONS if name in sent}
    if "max_tokens" in sent:
        options["num_predict"] = sent["max_tokens"]
    kept = {name: sent[name] for name in ("model", "prompt", "stream")}
    return kept | {"raw": True, "truncate": False, "options": options}


def completion_of(content: str | bytes) -> JsonObject:
    """An event of `/api/generate` as a completion, whole or a piece of one."""
    event = json.loads(content)
    reason = {"length": "length"}.get(event.get("done_reason", ""), "stop") if event.get("done") else None
    choice = {"index": 0, "text": event.get("response", ""), "logprobs": None, "finish_reason": reason}
    made: JsonObject = {
        "id": f"cmpl-{secrets.token_hex(8)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": event.get("model", ""),
        "choices": [choice],
    }
    if event.get("done"):
        read, written = event.get("prompt_eval_count", 0), event.get("eval_count", 0)
        made["usage"] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return made


def probe_body(sent: JsonObject) -> JsonObject:
    """A chat of one token that is refused where the prompt does not fit."""
    options = {"num_predict": 1}
    return {
        "model": sent["model"],
        "messages": sent["messages"],
        "stream": False,
        "truncate": False,
        "options": options,
    }
