"""Compare an upload and its retrieval with the usual alternatives: `make bench`.

All contenders run at the same time and take turns, so that other load on the machine affects all of them. The figures
are medians of all turns. CPU time and memory include all processes of a contender, as the kernel counts them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

from . import contenders
from .browser import fit
from .contenders import Contender
from .load import CUSTOMERS
from .photographs import PHONES, jpeg, photographs
from .plot import bars
from .processes import cpu_milliseconds, peak_megabytes

ROUNDS = 5
USUAL_PICTURE, USUAL_CLIENTS = "3 MB JPEG", 4
CLIENTS = (1, 4, 16, 64)

# Journeys in a turn, by clients: enough for each client, and for the kernel's CPU clock, which ticks every 10 ms.
JOURNEYS = {1: 60, 4: 100, 16: 160, 64: 320}

HELD = (0, 100, 1000)
AT_STAKE = 100

Start = Callable[[Path], AbstractContextManager[Contender]]
HEROIMG, UNCHECKED = "heroimg, files", "heroimg, files, no check"
EXPRESS, FASTAPI, NGINX = "Express 5, multer", "FastAPI, uvicorn[standard]", "nginx alone"

DIRECT: dict[str, Start] = {
    HEROIMG: contenders.heroimg,
    UNCHECKED: lambda folder: contenders.heroimg(folder, HEROIMG_IMAGE_CHECK="header"),
    "heroimg, Redis": contenders.heroimg_on_redis,
    "heroimg, Redis, no check": lambda folder: contenders.heroimg_on_redis(folder, HEROIMG_IMAGE_CHECK="header"),
    EXPRESS: contenders.express,
    FASTAPI: contenders.fastapi,
    "FastAPI, uvicorn": lambda folder: contenders.fastapi(folder, "--loop", "asyncio", "--http", "h11"),
    NGINX: contenders.file_server,
}


@dataclass
class Turn:
    """One measurement of a contender. A journey is an upload and a retrieval.

    :param cpu: CPU milliseconds of the contender for a journey.
    :param load: CPU milliseconds of the load generator for a journey.
    :param a_second: journeys a second.
    :param p50: the median of the milliseconds that a journey takes; `p99` is their 99th percentile.
    """

    cpu: float
    load: float
    a_second: float
    p50: float
    p99: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("test-output"), help="the folder for the JSON and the plot")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        running = start_all(folder, stack)
        photograph = jpeg(*PHONES)
        pictures = write_pictures(
            folder,
            photographs()
            | {
                "a phone's photograph": fit(photograph, running[HEROIMG].port).data,
                "a phone's photograph, not fitted": photograph,
            },
        )
        speed = measure_speed(running, pictures, given.rounds)
    memory, lost = measure_memory(photographs()[USUAL_PICTURE])
    report = {"machine": machine(), "speed": speed, "memory": memory, "lost": lost}
    given.output.mkdir(exist_ok=True)
    (given.output / "performance.json").write_text(json.dumps(report, indent=1))
    (given.output / "performance.svg").write_text(plot(speed, memory))
    print("", *lines_of_memory(memory, lost), sep="\n")


def start_all(folder: Path, stack: ExitStack) -> dict[str, Contender]:
    running = {}
    for number, (name, start) in enumerate(DIRECT.items()):
        (own := folder / str(number)).mkdir()
        running[name] = stack.enter_context(start(own))
        if name.startswith("heroimg") or name == EXPRESS:
            (front := folder / f"{number}-nginx").mkdir()
            running[f"{name}, behind nginx"] = stack.enter_context(contenders.behind_nginx(front, running[name]))
    return running


def write_pictures(folder: Path, pictures: dict[str, bytes]) -> dict[str, Path]:
    paths = {}
    for name, data in pictures.items():
        paths[name] = folder / name.replace(" ", "-")
        paths[name].write_bytes(data)
    return paths


def measure_speed(
    running: dict[str, Contender], pictures: dict[str, Path], rounds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Measure each picture with the usual number of clients, and the usual picture with each number of clients."""
    cells = {f"{picture}, {USUAL_CLIENTS} clients": (path, USUAL_CLIENTS) for picture, path in pictures.items()}
    cells |= {f"{USUAL_PICTURE}, {clients} clients": (pictures[USUAL_PICTURE], clients) for clients in CLIENTS}
    for contender in running.values():
        measure(contender, pictures[USUAL_PICTURE], USUAL_CLIENTS)  # warms up
    speed = {}
    for cell, (picture, clients) in cells.items():
        turns: dict[str, list[Turn]] = {name: [] for name in running}
        for _ in range(rounds):
            for name, contender in running.items():
                turns[name].append(measure(contender, picture, clients))
        speed[cell] = {name: medians(measured) for name, measured in turns.items()}
        print("", *lines_of_speed(cell, speed[cell]), sep="\n", flush=True)
    return speed


def measure(contender: Contender, picture: Path, clients: int) -> Turn:
    journeys = JOURNEYS[clients]
    command = [sys.executable, "-m", "benchmarks.load", contender.customer, "--port", str(contender.port)]
    command += ["--clients", str(clients), "--journeys", str(journeys), "--picture", str(picture)]
    before = cpu_milliseconds(contender.pids())
    load = subprocess.run(command, capture_output=True, text=True, check=False)
    cpu = cpu_milliseconds(contender.pids()) - before
    if load.returncode:
        raise SystemExit(load.stderr)
    report = json.loads(load.stdout)
    contender.tidy()
    times = [1000 * (upload + retrieval) for upload, retrieval in report["journeys"]]
    return Turn(
        cpu=cpu / journeys,
        load=report["own_cpu_seconds"] * 1000 / journeys,
        a_second=journeys / report["seconds"],
        p50=median(times),
        p99=quantiles(times, n=100)[-1],
    )


def medians(turns: list[Turn]) -> dict[str, float]:
    rows = [asdict(turn) for turn in turns]
    return {name: round(median(row[name] for row in rows), 2) for name in rows[0]}


def lines_of_speed(cell: str, measured: dict[str, dict[str, float]]) -> list[str]:
    own = measured[HEROIMG]["cpu"]
    lines = [f"{cell:39} CPU ms  heroimg's part  journeys/s  p50 ms  p99 ms"]
    for name, turn in measured.items():
        lines.append(
            f"  {name:37} {turn['cpu']:6.1f} {own / turn['cpu']:15.2f} {turn['a_second']:11.0f} "
            f"{turn['p50']:7.0f} {turn['p99']:7.0f}"
        )
    return [*lines, f"  the load generator itself             {measured[NGINX]['load']:6.1f}"]


def measure_memory(picture: bytes) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Return the peak megabytes by the number of pictures held, and how many of AT_STAKE are lost after kill -9."""
    memory, lost = dict[str, dict[str, float]](), dict[str, int]()
    for name, start in DIRECT.items():
        with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as contender:
            memory[name], held = {}, list[str]()
            for count in HELD:
                held += keep(contender, picture, count - len(held))
                memory[name][str(count)] = round(peak_megabytes(contender.pids()))
            contender.program.kill()
            contender.program.start()
            lost[name] = AT_STAKE - came_back(contender, picture, held[-AT_STAKE:])
    return memory, lost


def keep(contender: Contender, picture: bytes, count: int) -> list[str]:
    customer = CUSTOMERS[contender.customer](contender.port, picture)
    kept = [customer.upload() for _ in range(count)]
    customer.close()
    return kept


def came_back(contender: Contender, picture: bytes, image_ids: list[str]) -> int:
    customer, count = CUSTOMERS[contender.customer](contender.port, picture), 0
    for image_id in image_ids:
        with suppress(OSError):
            customer.retrieve(image_id)
            count += 1
    customer.close()
    return count


def lines_of_memory(memory: dict[str, dict[str, float]], lost: dict[str, int]) -> list[str]:
    head = "peak MB of all processes, pictures of 3 MB held:" + "".join(f"{count:7}" for count in HELD) + "   lost"
    lines = [head]
    for name, peaks in memory.items():
        row = "".join(f"{peaks[str(count)]:7.0f}" for count in HELD)
        lines.append(f"  {name:46}{row} {lost[name]:3} of {AT_STAKE}")
    return lines


def plot(speed: dict[str, dict[str, dict[str, float]]], memory: dict[str, dict[str, float]]) -> str:
    usual = speed[f"{USUAL_PICTURE}, {USUAL_CLIENTS} clients"]
    return bars(
        {
            "CPU milliseconds for an upload and a retrieval of 3 MB": {
                name: usual[name]["cpu"] for name in (HEROIMG, UNCHECKED, EXPRESS, FASTAPI, NGINX)
            },
            "peak megabytes with 1,000 pictures of 3 MB held": {
                name: memory[name][str(HELD[-1])] for name in (HEROIMG, UNCHECKED, EXPRESS, FASTAPI, NGINX)
            },
        }
    )


def machine() -> str:
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return f"{len(os.sched_getaffinity(0))} cores of {model.partition(': ')[2]}, Linux {platform.release()}"


if __name__ == "__main__":
    main()
