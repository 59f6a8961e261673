"""Debian's Apache with the site of deploy/apache.conf, in the foreground and in a folder of its own."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from tests.helpers.serving import ROOT, Server, copy_repository, free_port

MODULES = Path("/usr/lib/apache2/modules")

# The parts of Debian's apache2.conf and mods-enabled/ that a site needs.
_MACHINE = """
ServerName localhost
DefaultRuntimeDir {folder}/run
PidFile {folder}/run/pid
ErrorLog {folder}/log
User {apache_user}
Group {apache_group}
Listen 127.0.0.1:{http_port}
Listen 127.0.0.1:{port}
Listen 127.0.0.1:{panel_port}
{modules}
<IfModule wsgi_module>
    WSGISocketPrefix {folder}/run/wsgi
</IfModule>
<IfModule passenger_module>
    PassengerRoot /usr/lib/ruby/vendor_ruby/phusion_passenger/locations.ini
    PassengerInstanceRegistryDir {folder}/run
    PassengerDisableSecurityUpdateCheck on
    PassengerDisableAnonymousTelemetry on
    # How often it looks for tmp/restart.txt. The default is every 10 seconds.
    PassengerStatThrottleRate 0
</IfModule>
<Directory "/">
    AllowOverride None
    Require all denied
</Directory>
<Directory "{www}">
    Require all granted
</Directory>
"""

# Passenger as cPanel's Application Manager sets it up, and a folder that allows .htaccess, as cPanel's hosts do.
_PANEL = """
<IfModule passenger_module>
    <VirtualHost 127.0.0.1:{panel_port}>
        DocumentRoot {public}
        <Location "/">
            PassengerEnabled on
            PassengerBaseURI "/"
            PassengerAppRoot "{public}/heroimg"
            PassengerPython {venv}/bin/python
        </Location>
        <Directory "{public}">
            AllowOverride All
            Options Indexes
            Require all granted
        </Directory>
    </VirtualHost>
</IfModule>
"""


class Apache:
    """An Apache with the documented site. With Passenger it also has a site as a control panel sets it up.

    In both sites heroimg is below the document root, as after an operator's mistake.

    :param folder: must be open to every user.
    :param module: ``wsgi`` or ``passenger``.
    :param machine: the folder that :func:`make_environment` and `make_certificate` have filled.
    """

    def __init__(self, folder: Path, module: str, machine: Path, settings: dict[str, str]) -> None:
        self.site = _served(folder, folder / "www" / "heroimg", f"https://127.0.0.1:{free_port()}")
        self.panel = _served(folder, folder / "public" / "heroimg", f"http://127.0.0.1:{free_port()}")
        self.http_port = free_port()
        self._folder, self._module, self._machine = folder, module, machine
        (folder / "run").mkdir()
        for server, name in ((self.site, "www"), (self.panel, "public")):
            copy_repository(server.folder)
            (folder / name / "served.txt").write_text("Apache serves what is here.")
            lines = {"FRONTEND_URL": server.url, **settings}
            (server.folder / ".env").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        self._write_configuration()

    def start(self) -> None:
        """Start, and try once more if that fails.

        Passenger 6.0.17 sometimes ends Apache during its start: "mutex lock failed in pthread_mutex_lock".
        """
        for server in (self.site, self.panel):
            _give(server.folder, _users()[1])
        apache = shutil.which("apache2") or "/usr/sbin/apache2"
        in_root = ("sh", "-c", 'cd / && exec "$@"', "sh")  # systemd starts Apache there
        command = (*in_root, apache, "-f", str(self._folder / "apache2.conf"), "-DFOREGROUND")
        url = self.site.url
        try:
            with suppress(AssertionError):
                return self.site.start(*command, listening="(resuming normal operations)")
            return self.site.start(*command, listening="(resuming normal operations)")
        finally:
            self.site.url = url

    def stop(self) -> None:
        self.site.stop()

    def logs(self) -> str:
        """Return the logs of Apache, its modules and the application."""
        paths = [self.site.log_path, self._folder / "heroimg.log", self._folder / "heroimg-error.log"]
        return "".join(path.read_text() for path in paths if path.exists())

    def _write_configuration(self) -> None:
        apache_user, user = _users()
        names = "mpm_event authn_core authz_core authz_host alias dir env headers setenvif reqtimeout socache_shmcb ssl"
        lines = [f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in [*names.split(), self._module]]
        values = {
            "folder": self._folder,
            "apache_user": apache_user.pw_name,
            "apache_group": f"#{apache_user.pw_gid}",
            "http_port": self.http_port,
            "port": _port(self.site),
            "panel_port": _port(self.panel),
            "modules": "\n".join(lines),
            "www": self.site.folder.parent,
            "public": self.panel.folder.parent,
            "venv": self._machine / "venv",
        }
        here = {
            "/srv/heroimg/.venv": str(self._machine / "venv"),
            "/srv/heroimg": str(self.site.folder),
            "/var/www/html": str(self.site.folder.parent),
            "/var/log/apache2": str(self._folder),
            "/etc/letsencrypt/live/heroimg.example.com": str(self._machine),
            " user=heroimg group=heroimg": f" user={user.pw_name} group=#{user.pw_gid}",
            "PassengerUser heroimg": f"PassengerUser {user.pw_name}",
            "PassengerGroup heroimg": f"PassengerGroup {user.pw_gid}",
            "*:80>": f"127.0.0.1:{self.http_port}>",
            "*:443>": f"127.0.0.1:{_port(self.site)}>",
            r"https://www\.example\.com$": re.escape(self.site.url) + "$",
            "https://heroimg.example.com": self.site.url,
            "heroimg.example.com": "127.0.0.1",
        }
        for name in ("apache.conf", "passenger.conf"):
            text = (ROOT / "deploy" / name).read_text()
            for written, meant in here.items():
                text = text.replace(written, meant)
            (self.site.folder / "deploy" / name).write_text(text)
        text = _MACHINE.format(**values) + f"Include {self.site.folder}/deploy/apache.conf\n" + _PANEL.format(**values)
        (self._folder / "apache2.conf").write_text(text)


def make_environment(machine: Path) -> None:
    """Make a virtual environment of Debian's Python, which mod_wsgi is built for, with requirements.txt.

    The packages are copied from the environment of the tests.
    """
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", machine / "venv"], check=True)
    distributions = dict[str, Distribution]()
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if name := re.match(r"[\w.-]+", line):
            _find(name[0], distributions)
    packages = machine / "venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for package in distributions.values():
        for file in package.files or []:
            if ".." not in file.parts and file.suffix != ".pyc":
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(file.locate()), packages / file)
    flask = machine / "venv" / "bin" / "flask"
    flask.write_text(f"#!{flask.parent}/python\nfrom flask.cli import main\nmain()\n")
    flask.chmod(0o755)


def has_the_tests_python() -> bool:
    """Check whether Debian's Python has the version of the one that runs the tests."""
    code = "import sys; print(sys.version_info[:2])"
    asked = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True, check=False)
    return asked.stdout.strip() == str(sys.version_info[:2])


def _find(name: str, distributions: dict[str, Distribution]) -> None:
    with suppress(PackageNotFoundError):  # one for other systems
        package = distribution(name)
        if package.name not in distributions:
            distributions[package.name] = package
            for requirement in package.requires or []:
                if "extra ==" not in requirement and (needed := re.match(r"[\w.-]+", requirement)):
                    _find(needed[0], distributions)


def _served(folder: Path, project: Path, url: str) -> Server:
    server = Server(project, {})
    server.url, server.uploads, server.log_path = url, project / "uploads", folder / "log"
    # The settings are in .env. Passenger 6.0.17 imports a module that Python 3.12 removed.
    warnings = "error,ignore:the imp module:DeprecationWarning"
    server.environ = {"PATH": os.environ["PATH"], "PYTHONWARNINGS": warnings, "PYTHONDONTWRITEBYTECODE": "1"}
    return server


def _port(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def _users() -> tuple[pwd.struct_passwd, pwd.struct_passwd]:
    """Return Apache's user and heroimg's user: both are the current user, unless that is root."""
    if os.geteuid():
        return pwd.getpwuid(os.geteuid()), pwd.getpwuid(os.geteuid())
    return pwd.getpwnam("www-data"), pwd.getpwnam("nobody")


def _give(folder: Path, user: pwd.struct_passwd) -> None:
    if not os.geteuid():
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, user.pw_uid, user.pw_gid)
