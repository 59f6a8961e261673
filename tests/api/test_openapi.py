"""docs/openapi.yaml is true: generated requests get the answers that it describes.

All answers in other tests are checked against it too (tests/helpers/openapi.py).
"""

from __future__ import annotations

import re
from typing import Any

import hypothesis
from schemathesis import Case
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from heroimg import errors
from tests.helpers import openapi as description
from tests.helpers.shop import Shop

CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]

REQUEST_ID = description.document["components"]["headers"]["RequestId"]["schema"]


@description.schema.parametrize()
@hypothesis.settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
def test_every_request_gets_an_answer_that_is_described(case: Case[Any], open_shop: Shop) -> None:
    answer = case.call_and_validate(base_url=open_shop.api.server.url, checks=CHECKS, timeout=20)
    (request,) = answer.headers["x-request-id"]
    assert re.fullmatch(REQUEST_ID["pattern"], request)
    given = str(dict(case.headers or {}).get("X-Request-ID", ""))
    is_plain = re.fullmatch(REQUEST_ID["pattern"], given) and not re.search("[0-9a-f]{32}", given)
    assert (request == given) == bool(is_plain)


def test_every_failure_has_its_own_code_and_each_is_described_once() -> None:
    codes = [each.code for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "code")]
    assert len(codes) == len(set(codes))
    described = re.findall(r"`([a-z]+_[a-z_]+)`", str(description.document))
    of_werkzeug = {"bad_request", "request_entity_too_large"}
    of_nginx = {"server_unreachable"}
    assert set(described) - {"client_secret", "session_id"} == set(codes) | of_werkzeug | of_nginx
