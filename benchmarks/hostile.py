"""Show the CPU seconds and the peak memory that hostile input costs a worker: `python -m benchmarks.hostile`.

A new worker gets each case, because the peak of a costly case would hide the next one's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from requests import Response

from tests.helpers import hostile_inputs as hostile
from tests.helpers import pictures
from tests.helpers.api import UPLOAD, Api
from tests.helpers.process_usage import cpu_seconds, peak_bytes
from tests.helpers.serving import serving

# heroimg accepts this picture: noise in a progressive JPEG of 65 million pixels.
_NOISE = pictures.encode(pictures.noise(1000, 1000).resize((13_000, 5_000)), "JPEG", progressive=True, quality=20)


def main() -> None:
    cases = {name: picture for name, (picture, _) in hostile.PICTURES.items()} | {"65 million pixels of noise": _NOISE}
    for name, picture in cases.items():
        measure(name, partial(Api.upload, picture=picture))
    for name, (body, _) in hostile.FORMS.items():
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        measure(name, partial(Api.request, method="POST", path=UPLOAD, data=body, headers=headers))


def measure(name: str, send: Callable[[Api], Response]) -> None:
    with TemporaryDirectory() as folder, serving(Path(folder) / "served", {}, workers=1) as server:
        (worker,) = server.workers()
        before = cpu_seconds(worker)
        status = send(Api(server)).status_code
        spent = cpu_seconds(worker) - before
        print(f"{spent:5.2f} s {peak_bytes(worker) / 1e6:4.0f} MB  {status}  {name}", flush=True)


if __name__ == "__main__":
    main()
