"""Templates to pages."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from ai_forge import __version__
from ai_forge.wording import duration, local_time

if TYPE_CHECKING:
    from ai_forge.dashboard.session import Session

PAGES = (
    ("/", "Overview"),
    ("/chat", "Chat"),
    ("/compare", "Compare"),
    ("/deployments", "Deployments"),
    ("/settings", "Settings"),
)
# scripts and styles of this service alone, no frame around a page, no form to elsewhere
POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
)


@cache
def environment() -> Environment:
    """The templates. Everything is escaped, whatever a file is called: what is shown comes from repositories and models."""
    made = Environment(loader=PackageLoader("ai_forge.dashboard"), autoescape=True, undefined=StrictUndefined)
    made.filters |= {"local": local_time, "duration": duration}
    made.globals |= {"pages": PAGES, "version": __version__}
    return made


def render(template: str, session: Session | None, here: str, **values: object) -> str:
    """The text of a page, or with no session of a part of one. `here` is the entry of the menu that it belongs to."""
    csrf, signed_in = (session.csrf, session.signed_in) if session else ("", False)
    return environment().get_template(template).render(csrf=csrf, signed_in=signed_in, here=here, **values)


def rendered(template: str, session: Session, here: str, *, status: int = 200, **values: object) -> HTMLResponse:
    """The same as a response."""
    headers = {"content-security-policy": POLICY, "referrer-policy": "same-origin"}
    return HTMLResponse(render(template, session, here, **values), status, headers=headers)
