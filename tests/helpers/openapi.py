"""docs/openapi.yaml, and a check of responses against it."""

from __future__ import annotations

from typing import Any

import requests
import schemathesis
import yaml

from tests.helpers.serving import ROOT

_PATH = ROOT / "docs" / "openapi.yaml"
schema = schemathesis.openapi.from_path(_PATH)
document: dict[str, Any] = yaml.safe_load(_PATH.read_text())


def documented() -> set[tuple[str, str, str]]:
    """List every path, method and status that the description names."""
    return {
        (path, method.upper(), status)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
        for status in operation["responses"]
    }


def hold_to_description(method: str, path: str, answer: requests.Response) -> None:
    """Fail if a response has a status, shape, type or header that is not in the description."""
    if method.lower() not in document["paths"].get(path, {}):
        return
    response = (path, method, str(answer.status_code))
    assert response in documented(), f"{response} is not in {_PATH.name}: {answer.text[:200]}"
    schema[path][method].validate_response(answer)
