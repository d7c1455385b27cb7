"""Who looks at a page: a browser that is signed in by a key in a cookie, or anyone on this machine where no keys are demanded.

The cookie is HttpOnly and SameSite=Strict; a form besides carries a token, an HMAC of the cookie under a secret that this
process drew when it began. So a form of another site has neither.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from fastapi import Request, Response

from ai_forge.conductor.gate import KEY_COOKIE
from ai_forge.conductor.problems import ServiceError

MONTH_S = 30 * 24 * 3600
_SECRET = secrets.token_bytes(32)


@dataclass(frozen=True)
class Session:
    """A browser. `csrf` is what its forms must carry."""

    csrf: str
    signed_in: bool

    @staticmethod
    def keep(answer: Response, key: str, *, secure: bool) -> None:
        """Sign a browser in."""
        answer.set_cookie(KEY_COOKIE, key, max_age=MONTH_S, httponly=True, samesite="strict", secure=secure)

    @staticmethod
    def forget(answer: Response) -> None:
        """Sign it out."""
        answer.delete_cookie(KEY_COOKIE, httponly=True, samesite="strict")


def session_of(request: Request) -> Session:
    """The browser that asks."""
    key = request.cookies.get(KEY_COOKIE, "")
    token = hmac.new(_SECRET, key.encode(), hashlib.sha256).hexdigest()
    return Session(token, bool(key))


async def csrf_checked(request: Request) -> None:
    """Let through what a page of this service sent.

    Raises:
        ServiceError: 403 where the form carries no token or another one.
    """
    form = await request.form()
    given = request.headers.get("x-csrf-token") or str(form.get("csrf") or "")
    if not hmac.compare_digest(given.encode(), session_of(request).csrf.encode()):
        raise ServiceError(403, "stale_page", "This page is too old: the service began anew.", "load the page again.")
