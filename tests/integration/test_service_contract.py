"""What the service describes is what it does: generated requests, no 5xx, every answer as it is described.

`SCHEMATHESIS_EXAMPLES` sets how many requests each operation gets at most: few and always the same here, `make soak` sends a hundred
thousand, others with every `--hypothesis-seed`. `SCHEMATHESIS_COUNTS` names a file for how many each got.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service_app import Running, deploy_version, running, service_at, tiny_gguf

N_EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "40"))
COUNTS = os.environ.get("SCHEMATHESIS_COUNTS")
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
# what generated requests may ask for: a queue that nobody works on, a model of a megabyte, answers of a few tokens
LIMITS = {"service__max_answer_tokens": 4, "service__requests_per_minute": 10_000_000, "runtime__num_predict": 2}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("contract")
    gguf = tiny_gguf(home / "made")
    deploy_version(home, gguf, version="r0")
    deploy_version(home, gguf)
    with running(service_at(home, **LIMITS)) as listening:
        yield listening
    if COUNTS:
        Path(COUNTS).write_text(json.dumps(sent, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def description() -> dict[str, object]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        described: dict[str, object] = json.loads(json.dumps(service_at(Path(folder)).openapi()))
        return described


sent: Counter[str] = Counter()
schema = schemathesis.openapi.from_dict(description())


@schema.parametrize()
@settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize="SCHEMATHESIS_EXAMPLES" not in os.environ,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_generated_requests_get_what_is_described(case: schemathesis.Case, service: Running) -> None:
    sent[f"{case.method} {case.path}"] += 1
    response = case.call(base_url=service.url, timeout=30)
    case.validate_response(response, checks=list(CHECKS))
