"""How the service listens and what it lets a caller do."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ServiceSettings(BaseModel):
    """Where the service listens, who may call it, and the limits of one request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on; any but this machine's own demands API keys")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    require_keys: Literal["auto", "always"] = Field(
        "auto", description="auto: API keys are demanded unless the service listens on this machine alone"
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names under which callers reach it besides its address, as in Host"
    )
    allowed_origins: tuple[str, ...] = Field(
        (), description="web pages that may call it, for example https://team.example"
    )
    repository_roots: tuple[str, ...] = Field((), description="folders whose repositories a request may name by path")
    max_request_bytes: int = Field(4_000_000, ge=1000, description="largest body of a request but an upload")
    max_upload_bytes: int = Field(
        1_000_000_000, ge=1000, description="largest upload, and what an archive may unpack to"
    )
    max_answer_tokens: int = Field(
        4096, ge=1, le=1_048_576, description="longest answer; a request for a longer one gets so much"
    )
    answer_timeout_s: float = Field(300.0, gt=0, description="longest time that one answer may take")
    requests_per_minute: int = Field(1200, ge=1, description="requests a minute that one key (or address) may make")
    max_models: int = Field(2, ge=1, le=100, description="models kept open at a time; the one unused longest gives way")
