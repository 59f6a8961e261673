"""deploy/prometheus: promtool tests the rules, and a real Prometheus with these rules scrapes a real heroimg."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from demo.stripe_stand_in import StandIn
from heroimg import errors
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.needed_programs import needs, require
from tests.helpers.serving import LONG, ROOT, DrivenClock, free_port, serving_at, wait_for
from tests.helpers.shop import stripe_settings

FOLDER = ROOT / "deploy" / "prometheus"
RULES = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load((FOLDER / "heroimg-rules.yml").read_text())["groups"]
    for rule in group["rules"]
}
PAGE = (ROOT / "docs" / "operations.md").read_text()
QUERIES = re.findall(r"^    ((?:sum|histogram_quantile|heroimg_).*)$", PAGE, re.MULTILINE)


@needs("promtool")
@pytest.mark.parametrize(
    "command", [("check", "rules", "heroimg-rules.yml"), ("test", "rules", "heroimg-rules-test.yml")]
)
def test_promtool_accepts_the_rules_and_their_tests(command: tuple[str, ...]) -> None:
    ran = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_rule_has_a_test_that_fires_and_one_that_does_not() -> None:
    quiet, loud, *_ = yaml.safe_load((FOLDER / "heroimg-rules-test.yml").read_text())["tests"]
    assert [case["alertname"] for case in quiet["alert_rule_test"]] == list(RULES)
    assert not any("exp_alerts" in case for case in quiet["alert_rule_test"])
    assert {case["alertname"] for case in loud["alert_rule_test"] if case["exp_alerts"]} == set(RULES)


def test_every_error_with_5xx_is_in_a_rule() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.HeroimgError)]
    classes.remove(errors.HeroimgError)
    codes = {one.code for one in classes if one.status >= 500} - {"prefetch_refused"}
    codes.add("internal_server_error")  # Werkzeug's
    named = re.findall(r'code=~"([^"]+)"', "".join(RULES.values()))
    assert codes == set("|".join(named).split("|"))


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Scrape a server every second with the shipped rules; return the address of Prometheus."""
    require("prometheus")
    folder.mkdir()
    shutil.copy(FOLDER / "heroimg-rules.yml", folder)
    scrape = [{"job_name": "heroimg", "static_configs": [{"targets": [target]}]}]
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {"global": every, "rule_files": ["heroimg-rules.yml"], "scrape_configs": scrape}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    url = f"http://127.0.0.1:{free_port()}"
    options = ("--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={url[7:]}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *options], cwd=folder, stdout=log, stderr=log)
    try:
        yield url
    finally:
        process.terminate()
        process.wait(LONG)


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """Run a query; return its series."""
    try:
        answer = requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=LONG)
    except requests.ConnectionError:  # it has just started
        return []
    assert answer.status_code in (200, 503), answer.text
    series: list[dict[str, Any]] = answer.json()["data"]["result"] if answer.status_code == 200 else []
    return series


@pytest.mark.proof
def test_a_real_prometheus_finds_the_figures_of_every_rule_and_query(tmp_path: Path, clock: DrivenClock) -> None:
    settings = {"HEROIMG_METRICS": "1", "HEROIMG_SWEEP_SECONDS": "1"}
    with (
        StandIn(clock=clock) as stand_in,
        serving_at(clock, tmp_path / "served", {**stripe_settings(stand_in), **settings}, workers=1) as server,
        prometheus(tmp_path / "prometheus", server.url.removeprefix("http://")) as url,
    ):
        api = Api(server)
        wait_for(lambda: ask(url, "up == 1"), "the first scrape")
        paid = api.session_of(api.keep(pictures.jpeg()))
        stand_in.pay(paid)
        api.status(paid)
        for code in ("500", "disconnect", "disconnect"):
            stand_in.fail_next(code)
        api.status(paid)
        api.status(paid)
        moved = server.uploads.rename(server.folder / "moved")
        assert api.upload(pictures.jpeg()).json()["code"] == "store_unavailable"
        moved.rename(server.uploads)
        wait_for(lambda: ask(url, "heroimg_refusals_total"), "the refusals to be scraped")
        for name, expression in RULES.items():
            without_comparison = re.sub(r" (==|[<>]) (bool )?-?[\d/* ]+", " ", expression)
            for query in without_comparison.split(" or "):
                wait_for(lambda query=query: ask(url, query), f"a figure for {name}")  # type: ignore[misc]
        assert len(QUERIES) == 5
        for query in QUERIES:
            wait_for(lambda query=query: ask(url, query), query)  # type: ignore[misc]
        clock.forward(25 * 3600)
        wait_for(lambda: ask(url, 'ALERTS{alertname="HeroimgPaidNeverFetched", alertstate="firing"}'), "the alert")
        assert not ask(url, 'ALERTS{alertname="HeroimgDown"}')


def test_the_journals_filter_finds_the_line_of_a_paid_picture_that_expired(tmp_path: Path, clock: DrivenClock) -> None:
    (pattern,) = re.findall(r"--grep='([^']+)'", PAGE)
    with (
        StandIn(clock=clock) as stand_in,
        serving_at(clock, tmp_path / "served", {**stripe_settings(stand_in), "HEROIMG_SWEEP_SECONDS": "1"}) as server,
    ):
        api = Api(server)
        paid = api.session_of(api.keep(pictures.jpeg()))
        stand_in.pay(paid)
        api.status(paid)
        clock.forward(25 * 3600)
        wait_for(lambda: "swept 1 " in server.log(), "the sweep")
        wait_for(lambda: re.search(pattern, server.log()), "the line")
        assert len(re.findall(pattern, server.log())) == 1
