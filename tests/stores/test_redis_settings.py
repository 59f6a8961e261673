"""Redis' settings and REDIS_URL: which work, which give a warning, and which prevent the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heroimg.config import Config, ConfigError
from heroimg.stores import open_store
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.needed_programs import require
from tests.helpers.production import make_certificate
from tests.helpers.redis_servers import RedisCluster, RedisServer
from tests.helpers.serving import Server, serving


@pytest.fixture(autouse=True)
def _programs() -> None:
    require("redis-server")


def test_readyz_warns_if_redis_could_lose_pictures(tmp_path: Path, redis: RedisServer) -> None:
    with serving(tmp_path / "served", {"REDIS_URL": redis.url}) as server:

        def ready() -> Any:
            answer = Api(server).request("GET", "/readyz")
            assert answer.status_code == 200
            return answer.json()

        assert ready() == {"status": "ok"}
        for policy in ("allkeys-lru", "volatile-ttl"):
            redis.client.config_set("maxmemory-policy", policy)
            (warning,) = ready()["warnings"]
            assert f"set its maxmemory-policy to noeviction, not {policy}" in warning
        redis.client.config_set("appendonly", "no")
        assert any("set its appendonly to yes" in warning for warning in ready()["warnings"])


def test_the_password_of_redis_url_never_reaches_the_log(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", requirepass="a-long-secret") as redis:
        url = redis.url.replace("://", "://:a-long-secret@")
        with serving(tmp_path / "served", {"REDIS_URL": url}) as server:
            assert Api(server).request("GET", "/readyz").status_code == 200
            redis.end()
            assert Api(server).request("GET", "/readyz").status_code == 503
            assert f"pictures wait in {redis.url}" in server.log()
            assert "a-long-secret" not in server.log()


def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    with (
        RedisServer(tmp_path / "redis", unixsocket=str(socket)),
        serving(tmp_path / "served", {"REDIS_URL": f"unix://{socket}?db=0"}) as server,
    ):
        image_id = Api(server).keep(pictures.jpeg())
        assert Api(server).retrieve(image_id).content == pictures.jpeg()


@pytest.mark.proof
def test_a_cluster_with_tls_and_the_options_of_the_url_serves(tmp_path: Path) -> None:
    require("openssl")
    make_certificate(tmp_path)
    certificate, key = str(tmp_path / "fullchain.pem"), str(tmp_path / "privkey.pem")
    tls = {"tls_cert_file": certificate, "tls_key_file": key, "tls_ca_cert_file": certificate}
    with RedisCluster(tmp_path / "redis", replicas=0, **tls) as cluster:
        url = f"{cluster.url.replace('redis', 'rediss')}?ssl_ca_certs={certificate}&client_name=heroimg"
        with serving(tmp_path / "served", {"REDIS_URL": url}, workers=1) as server:
            api = Api(server)
            assert api.request("GET", "/readyz").json() == {"status": "ok"}
            for image_id in [api.keep(pictures.jpeg()) for _ in range(5)]:
                assert api.retrieve(image_id).content == pictures.jpeg()
            names = [client["name"] for node in cluster.nodes for client in node.client.client_list()]
            assert "heroimg" in names
        with serving(tmp_path / "untrusted", {"REDIS_URL": url.partition("?")[0]}, workers=1) as server:
            assert Api(server).request("GET", "/readyz").status_code == 503
            assert "certificate verify failed" in server.log()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2/x@localhost:6379",
        "redis://:hunt?er2=1@localhost:6379",
        "redis+cluster://localhost",
        "rediss://localhost?ssl_cert_reqs=hunter2",
    ],
)
def test_a_redis_url_that_cannot_be_read_stops_the_start_and_is_not_repeated(tmp_path: Path, url: str) -> None:
    server = Server(tmp_path, {"REDIS_URL": url})
    with pytest.raises(AssertionError, match="REDIS_URL cannot be read") as stopped:
        server.gunicorn()
    assert "er2" not in str(stopped.value)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("redis://h/?maxconnections=3", "maxconnections, which does not exist; did you mean max_connections?"),
        ("unix:///socket?clientname=a", "clientname, which does not exist; did you mean client_name?"),
        ("redis://h?socket_timeout=9", "socket_timeout, which heroimg sets itself: leave it out"),
        (
            "redis+cluster://h:1?health_check_interval=9",
            "health_check_interval, which heroimg sets itself: leave it out",
        ),
        ("rediss://h?ssl_ca_cert=/ca.pem", "ssl_ca_cert, which does not exist; did you mean ssl_ca_certs?"),
        ("rediss+cluster://h:1,i:2?ssl_cacert=/a", "ssl_cacert, which does not exist; did you mean ssl_ca_certs?"),
        ("redis+cluster://h:1?ssl_ca_certs=/a", "ssl_ca_certs, which is for TLS: start the URL with rediss, not redis"),
        ("redis://h?ssl_ca_certs=/ca.pem", "ssl_ca_certs, which is for TLS: start the URL with rediss, not redis"),
        ("rediss+cluster://h:1?ssl_min_version=3", "ssl_min_version, which does not exist"),
        ("rediss://h?ssl_ca_certs=", "ssl_ca_certs without a value"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(url: str, fault: str) -> None:
    with pytest.raises(ConfigError) as stopped:
        open_store(Config(redis_url=url), lambda: 0)
    assert f"REDIS_URL has the option {fault}" in str(stopped.value)


def test_a_database_of_a_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="names a database"):
        open_store(Config(redis_url="redis+cluster://h:1/2"), lambda: 0)


@pytest.fixture
def without_redis_py(tmp_path: Path) -> dict[str, Any]:
    """Make an environment in which `import redis` fails as if it were not installed."""
    (tmp_path / "hidden" / "redis").mkdir(parents=True)
    (tmp_path / "hidden" / "redis" / "__init__.py").write_text("raise ModuleNotFoundError('No module named redis')\n")
    server = Server(tmp_path, {})
    return {"PYTHONPATH": f"{tmp_path / 'hidden'}:{server.environ['PYTHONPATH']}"}


def test_without_redis_py_the_start_says_what_to_install(tmp_path: Path, without_redis_py: dict[str, str]) -> None:
    server = Server(tmp_path, {"REDIS_URL": "redis://localhost", **without_redis_py})
    with pytest.raises(AssertionError, match=r"pip install -r requirements-redis\.txt"):
        server.gunicorn()


def test_without_redis_url_redis_is_not_imported(tmp_path: Path, without_redis_py: dict[str, str]) -> None:
    with serving(tmp_path, without_redis_py) as server:
        assert Api(server).upload(pictures.jpeg()).status_code == 200
