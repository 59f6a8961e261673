"""A folder on NFS, whose locks differ from those of a local disk, and a mount without locks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.needed_programs import needs
from tests.helpers.serving import ROOT, Server, serving, wait_for
from tests.helpers.shop import stripe_settings
from tests.helpers.store_shelf import OTHER_TOKEN, TOKEN, UNKNOWN

pytestmark = needs("cc")


@pytest.fixture
def nfs(tmp_path: Path) -> dict[str, str]:
    """Make a folder whose files have the locks of NFS; no locks while a file `without-locks` is next to it."""
    library = tmp_path / "nfs_flock.so"
    source = ROOT / "tests" / "helpers" / "nfs_flock.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    (tmp_path / "nfs").mkdir()
    return {
        "HEROIMG_UPLOAD_DIR": str(tmp_path / "nfs" / "uploads"),
        "LD_PRELOAD": str(library),
        "NFS_WITHOUT_LOCKS": str(tmp_path / "without-locks"),
    }


def test_on_nfs_pictures_are_kept_paid_for_handed_over_and_swept(tmp_path: Path, nfs: dict[str, str]) -> None:
    with StandIn() as stand_in:
        settings = {**nfs, **stripe_settings(stand_in), "HEROIMG_SWEEP_SECONDS": "1"}
        with serving(tmp_path / "served", settings) as server:
            api, uploads = Api(server), Path(nfs["HEROIMG_UPLOAD_DIR"])
            image_id = api.keep(pictures.jpeg())
            stand_in.pay(api.session_of(image_id))
            assert api.retrieve(image_id, TOKEN).content == pictures.jpeg()
            assert api.retrieve(image_id, OTHER_TOKEN).status_code == 409
            assert api.confirm(image_id, TOKEN).status_code == 204
            assert [answer.status_code for answer in api.many(4, api.keep(pictures.jpeg()))].count(200) == 1
            for name in (f"{UNKNOWN}.part", f"{UNKNOWN[::-1]}.json"):
                (uploads / name).touch(mode=0o600)
            wait_for(lambda: list(uploads.iterdir()) == [], "the leftovers to be swept")
            assert api.request("GET", "/readyz").json() == {"status": "ok"}


def test_a_mount_without_locks_stops_the_start_with_a_sentence(tmp_path: Path, nfs: dict[str, str]) -> None:
    Path(nfs["NFS_WITHOUT_LOCKS"]).touch()
    (tmp_path / "served").mkdir()
    with pytest.raises(AssertionError, match=r"HEROIMG_UPLOAD_DIR is .*No locks available"):
        Server(tmp_path / "served", nfs).gunicorn()


EVERYTHING: list[Callable[[Api, str], requests.Response]] = [
    lambda api, _: api.upload(pictures.jpeg()),
    lambda api, image_id: api.retrieve(image_id),
    lambda api, image_id: api.retrieve(image_id, TOKEN),
    lambda api, image_id: api.confirm(image_id),
    lambda api, image_id: api.open_checkout(image_id),
    lambda api, _: api.request("GET", "/healthz"),
    lambda api, _: api.request("GET", "/readyz"),
]


def test_while_locks_are_missing_everything_is_503_and_no_picture_is_lost(tmp_path: Path, nfs: dict[str, str]) -> None:
    with StandIn() as stand_in:
        settings = {**nfs, **stripe_settings(stand_in), "HEROIMG_SWEEP_SECONDS": "1"}
        with serving(tmp_path / "served", settings) as server:
            api = Api(server)
            image_id = api.keep(pictures.jpeg())
            Path(nfs["NFS_WITHOUT_LOCKS"]).touch()
            for ask in EVERYTHING:
                answer = ask(api, image_id)
                assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert "No locks available" in server.log()
            assert "Traceback" not in server.log()
            Path(nfs["NFS_WITHOUT_LOCKS"]).unlink()
            assert api.retrieve(image_id).content == pictures.jpeg()
            assert api.request("GET", "/readyz").json() == {"status": "ok"}
