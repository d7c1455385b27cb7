"""Who is told how a cycle ended: the desktop, where there is one, and an address that was set, by a signed request.

The request follows the Standard Webhooks: `webhook-id`, `webhook-timestamp`, and `webhook-signature`, which is `v1,` and the
base64 of HMAC-SHA256 over `id.timestamp.body` with the secret of AI_FORGE_WEBHOOK_SECRET; the receiver refuses what is old or
signed otherwise. Being told is never in the way: what fails is returned as a sentence, and the cycle ends as it would.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping

from ai_forge.antigravity_agent.markdown import UNSHOWABLE
from ai_forge.config import GuardianSettings

__all__ = ["notify", "sign", "signature_is_right"]

TIMEOUT_S = 10.0
DESKTOP_TIMEOUT_S = 5.0
TRIES = 3
TOLERANCE_S = 300.0
# the texts come as arguments: nothing of them is read as a script
APPLE_SCRIPT = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run"


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of a request."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    """The key of a secret: base64 behind `whsec_`, as the Standard Webhooks write it, else its own bytes."""
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"))
    return secret.encode()


def signature_is_right(
    secret: str, headers: Mapping[str, str], body: bytes, *, now: Callable[[], float] = time.time
) -> bool:
    """What a receiver checks: the signature over id, time and body, and that the time is within five minutes."""
    try:
        timestamp = int(headers["webhook-timestamp"])
        expected = sign(secret, headers["webhook-id"], timestamp, body)
        given = headers["webhook-signature"].split(" ")
    except (KeyError, ValueError):
        return False
    is_fresh = abs(now() - timestamp) <= TOLERANCE_S
    return is_fresh and any(hmac.compare_digest(expected, one) for one in given)


def notify(
    title: str,
    text: str,
    payload: Mapping[str, object],
    settings: GuardianSettings,
    *,
    environment: Mapping[str, str] = os.environ,
    wait_s: float = 2.0,
) -> list[str]:
    """Tell that something ended; returns what could not be told, as sentences."""
    problems = []
    if settings.desktop:
        problem = _on_desktop(title, text)
        if problem:
            problems.append(problem)
    if settings.webhook is not None:
        secret = environment.get("AI_FORGE_WEBHOOK_SECRET", "")
        problem = _post(settings.webhook, secret, payload, wait_s)
        if problem:
            problems.append(problem)
    return problems


def _on_desktop(title: str, text: str) -> str | None:
    title, text = (UNSHOWABLE.sub(" ", part)[:200] for part in (title, text))
    if command := shutil.which("notify-send"):
        words = [command, "--app-name=AI Forge", "--", title, html.escape(text)]  # its body may hold markup
    elif command := shutil.which("osascript"):
        words = [command, "-e", APPLE_SCRIPT, title, text]
    else:
        return None  # no desktop is no problem
    try:
        done = subprocess.run(words, capture_output=True, timeout=DESKTOP_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"The desktop was not notified: {error}."
    return None if done.returncode == 0 else f"The desktop was not notified: {command} ended with {done.returncode}."


def _post(url: str, secret: str, payload: Mapping[str, object], wait_s: float) -> str | None:
    import httpx

    if not secret:
        return f"{url} was not told: set AI_FORGE_WEBHOOK_SECRET, with which the message is signed."
    body = json.dumps(payload, ensure_ascii=False, default=str).encode()
    message_id = f"msg_{uuid.uuid4().hex}"  # the same for each try: a receiver that got it knows it again
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(wait_s * 2 ** (attempt - 1))
        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secret, message_id, timestamp, body),
        }
        try:
            answer = httpx.post(url, content=body, headers=headers, timeout=TIMEOUT_S, follow_redirects=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = str(error) or type(error).__name__
            continue
        if answer.is_success:
            return None
        problem = f"it answered {answer.status_code}"
        if answer.status_code < 500 and answer.status_code != 429:
            break  # it will not think otherwise of the same message
    return f"{url} was not told: {problem}."
