"""A short form of `make torture`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.needed_programs import require
from tests.soak.torture import torture


@pytest.mark.proof
@pytest.mark.parametrize("store", ["files", "redis"])
def test_whole_journeys_keep_the_promises_while_faults_happen(tmp_path: Path, store: str) -> None:
    require("nginx")
    require("openssl")
    if store == "redis":
        require("redis-server")
    model = torture(tmp_path, store, seed=1, customers=8, seconds=3)
    assert model.violations == [], model.table()
    assert sum(model.journeys.values()) >= 16
