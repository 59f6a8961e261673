"""Production on one machine: nginx with deploy/nginx.conf before gunicorn with gunicorn.conf.py."""

from __future__ import annotations

import itertools
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from demo.stripe_stand_in import StandIn
from tests.helpers.api import Api, new_token
from tests.helpers.needed_programs import require
from tests.helpers.serving import LONG, ROOT, Server, free_port, wait_for
from tests.helpers.shop import stripe_settings

# The shortest nginx.conf that can contain the site.
AROUND = """
daemon off;
user root;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 768; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""

# An address for each customer: all of 127.0.0.0/8 belongs to this machine.
addresses = (f"127.0.{b}.{c}" for b, c in itertools.product(range(1, 250), range(1, 250)))


class _From(HTTPAdapter):
    """Makes requests connect from a chosen address."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, source_address=(self._address, 0))


class Production:
    """The whole server: nginx with TLS, gunicorn behind it, and the logs of both."""

    def __init__(self, folder: Path, settings: dict[str, str], stand_in: StandIn, changes: Mapping[str, str]) -> None:
        self.folder = folder
        self.changes = changes
        self.workers = 2
        self.stand_in = stand_in
        self.certificate = folder / "fullchain.pem"
        self.socket = socket.socket(socket.AF_UNIX)
        self.server = Server(
            folder / "served",
            {
                "FRONTEND_URL": "https://www.example.com",
                "HEROIMG_TRUSTED_PROXIES": "1",
                **stripe_settings(stand_in),
                **settings,
            },
        )
        self.plain_port, self.port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"

    def customer(self, address: str | None = None) -> Api:
        """Return the API as a customer reaches it: through nginx, from an address of the customer's own."""
        front = Server(self.folder, {})
        front.url = self.url
        api = Api(front)
        session = requests.Session()
        session.mount("https://", _From(address or next(addresses)))
        session.verify = str(self.certificate)
        session.trust_env = False  # otherwise a REQUESTS_CA_BUNDLE would replace our certificate
        api.send = session.request
        return api

    def ask(self, api: Api, path: str, **options: Any) -> requests.Response:
        """Send a request that nginx may answer itself: docs/openapi.yaml does not describe this for every path."""
        return api.send("GET", self.url + path, timeout=LONG, **options)

    def start(self) -> None:
        """Start gunicorn on a socket that stays open when gunicorn ends, as heroimg.socket does."""
        self.server.gunicorn(socket=self.socket, workers=self.workers)

    def logs(self) -> str:
        """Read the logs of nginx, its journal and gunicorn."""
        return "".join(path.read_text() for path in [*self.folder.glob("nginx/*.log"), self.server.log_path])

    def nginx_errors(self) -> str:
        """Read nginx's errors, as heroimg-nginx.service writes them to the journal."""
        return (self.folder / "nginx" / "journal.log").read_text()

    def site(self) -> str:
        """Return deploy/nginx.conf with other paths and ports."""
        other = {
            "unix:/run/heroimg.sock": f"unix:{self.folder}/heroimg.sock",
            "unix:/run/heroimg-nginx.sock": f"unix:{self.folder}/heroimg-nginx.sock",
            "/etc/ssl/heroimg": str(self.folder),
            "/var/log/nginx": f"{self.folder}/nginx",
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "listen [::]:80;": f"listen [::1]:{self.plain_port};",
            "listen 443 ": f"listen 127.0.0.1:{self.port} ",
            "listen [::]:443 ": f"listen [::1]:{self.port} ",
        }
        site = (ROOT / "deploy" / "nginx.conf").read_text()
        for shipped, ours in other.items():
            assert shipped in site
            site = site.replace(shipped, ours)
        return site


class Phone:
    """A customer's TLS connection, which sends and reads as slowly as a test wants."""

    def __init__(self, house: Production, stack: ExitStack, window: int | None = None) -> None:
        plain = socket.socket()
        plain.settimeout(LONG)
        if window:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        plain.bind((next(addresses), 0))
        plain.connect(("127.0.0.1", house.port))
        context = ssl.create_default_context(cafile=str(house.certificate))
        self.connection = stack.enter_context(context.wrap_socket(plain, server_hostname="heroimg.example.com"))

    def asks(self, method: str, path: str, headers: str = "", body: bytes = b"") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: heroimg.example.com\r\nConnection: close\r\n{headers}\r\n"
        self.connection.sendall(head.encode() + body)

    def answer(self) -> bytes:
        """Read to the end, as fast as possible."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        received = b""
        while data := self.connection.recv(65536):
            received += data
        return received


@contextmanager
def production(
    folder: Path, workers: int = 2, changes: Mapping[str, str] | None = None, /, **settings: str
) -> Iterator[Production]:
    """Serve as in production while in the block.

    :param changes: text in nginx's files, and what replaces it.
    """
    require("nginx")
    require("openssl")
    with ExitStack() as stack:
        stand_in = stack.enter_context(StandIn())
        whole = Production(folder, settings, stand_in, changes or {})
        whole.workers = workers
        whole.server.folder.mkdir(parents=True)
        stack.enter_context(whole.socket).bind(str(folder / "heroimg.sock"))
        whole.socket.listen(4096)
        make_certificate(folder)
        _start_nginx_journal(whole, stack)
        _start_nginx(whole, stack)
        stack.callback(whole.server.stop)
        whole.start()
        yield whole


def make_journey(house: Production, picture: bytes) -> None:
    """Upload, pay, fetch and confirm a picture from a new address; fail on any wrong answer."""
    api, token = house.customer(), new_token()
    image_id = api.keep(picture)
    session_id = api.session_of(image_id)
    house.stand_in.pay(session_id)
    assert api.status(session_id).json()["metadata"] == {"imageId": image_id}
    assert api.retrieve(image_id, token).content == picture
    assert api.confirm(image_id, token).status_code == 204


def make_certificate(folder: Path) -> None:
    """Make a certificate for this machine."""
    names = "subjectAltName=IP:127.0.0.1,IP:::1,DNS:heroimg.example.com"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        ["openssl", "req", "-x509", *curve, "-days", "2", "-subj", "/CN=heroimg.example.com", "-addext", names,
         "-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"],
        check=True, capture_output=True,
    )  # fmt: skip


def _start_nginx_journal(whole: Production, stack: ExitStack) -> None:
    """Run the command of heroimg-nginx.service as systemd does: with the socket as its standard input."""
    (whole.folder / "nginx").mkdir()
    command = re.search(
        r'^ExecStart=(\S+) -c "(.*)"$', (ROOT / "deploy/heroimg-nginx.service").read_text(), re.MULTILINE
    )
    assert command
    code = command[2].encode().decode("unicode_escape")  # systemd.service(5), "Command lines"
    receiver = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    receiver.bind(str(whole.folder / "heroimg-nginx.sock"))
    with (whole.folder / "nginx" / "journal.log").open("wb") as journal:
        process = subprocess.Popen([command[1], "-c", code], stdin=receiver.fileno(), stdout=journal)
    stack.callback(process.wait, LONG)
    stack.callback(process.terminate)


def _start_nginx(whole: Production, stack: ExitStack) -> None:
    folder = whole.folder / "nginx"
    files = {"site.conf": whole.site(), "nginx.conf": AROUND.format(folder=folder)}
    for shipped, ours in whole.changes.items():
        assert any(shipped in text for text in files.values())
        files = {name: text.replace(shipped, ours) for name, text in files.items()}
    for name, text in files.items():
        (folder / name).write_text(text)
    shutil.copy(ROOT / "deploy" / "nginx-errors.conf", folder / "heroimg-errors.conf")
    command = [shutil.which("nginx") or "nginx", "-c", str(folder / "nginx.conf")]
    with (folder / "stderr").open("wb") as stderr:
        nginx = subprocess.Popen(command, stderr=stderr)
    stack.callback(nginx.wait, LONG)
    stack.callback(nginx.terminate)
    wait_for(lambda: _listens(whole.port) or nginx.poll() is not None, "nginx to listen")
    assert nginx.poll() is None, (folder / "stderr").read_text()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def shipped(file: str, pattern: str) -> int:
    """Return the number that the pattern's group matches in a file of the repository."""
    match = re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)
    assert match, f"{pattern} is not in {file}"
    return int(match[1])
