"""How soon the studio answers, and how it bears many people: a real `orbweave ui`, a real browser.

    python benchmarks/studio.py --out studio.json

    start   seconds from the start of the process to the first answered request, to the page and
            to warm models
    screen  with warm models, seconds from pressing Design to the first words on the screen and to
            the first picture, in Chromium, with the page's own settings
    stop    seconds from pressing Stop until the next person's design runs, while the team talks
            and while it draws
    crowd   people who all press Design at once: whether every design ends, whether anybody is
            shown another's, how long a look at the page takes meanwhile, and peak memory

Everything but `crowd` is done several times; told are the median and the spread. Nothing is
stubbed: models, server and browser are those of a user. Close other work before.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import httpx

from orbweave.files import write_text
from orbweave.store import STORE_VARIABLE
from ui.environment import environment

ROOT = Path(__file__).resolve().parents[1]
CONCEPT = "a filter membrane that combines spider silk and leaf veins"
OTHERS = Path(__file__).with_name("concepts.jsonl")
"""Concepts for the screen: one asked for twice would find its prompts read already."""
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
PARTS = ("start", "screen", "stop", "crowd")
PATIENCE_S = 1_800.0
"""Longest wait for anything; what takes longer is a fault."""
TICK_S = 0.02
"""How often is looked whether something has happened, where it is measured."""
POLL_S = 1.0
"""How often each of a crowd looks; a page does so twice as often while it shows a design."""
LIMITS_S = {
    "first request answered": 10.0,
    "first words on the screen": 4.0,
    "first picture on the screen": 45.0,
    "slot free after stop, talking": 2.0,
    "slot free after stop, drawing": 2.0,
}
ENDED = ("done", "stopped", "failed", "interrupted")
WATCH = """() => {
  const seen = (window.seen = {});
  const note = (what) => { if (!(what in seen)) seen[what] = performance.now(); };
  const some = (where, fits) => [...document.querySelectorAll(where)].some(fits);
  document.querySelector("#begin").addEventListener("click", () => note("pressed"), true);
  const look = () => {
    if (some(".ow-turn .ow-text", (e) => e.textContent.trim())) note("words");
    if (some("#table img", (i) => i.complete && i.naturalWidth)) note("picture");
    if (!("picture" in seen)) requestAnimationFrame(look);
  };
  look();
}"""
"""Notes in the page when the button was pressed and when words and a picture were there."""


class Row(NamedTuple):
    """One thing measured."""

    what: str
    seconds: Sequence[float]
    """One for each try."""


@dataclass(frozen=True)
class Running:
    """A studio in a process of its own."""

    url: str
    pid: int
    first_s: float
    """Seconds from its start to its first answer."""
    page_s: float
    """To the page itself; until then it says that it opens."""
    warm_s: float
    """To models that are loaded."""


class Person:
    """Somebody with designs of their own, who asks what the page's script and programs ask."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._key = {"authorization": f"Bearer a-person-of-the-benchmark-{name}"}
        self._api: Any = None

    def look(self, design: str = "") -> dict[str, Any]:
        """Return what the page shows of a design."""
        return self._asked("look", {"design": design})

    def stop(self, design: str) -> None:
        """Press Stop."""
        self._asked("act", {"design": design, "do": "stop"})

    def ask(self, endpoint: str, *values: Any, **fields: Any) -> Any:
        """Return what an endpoint of docs/api.md answers."""
        from gradio_client import Client

        if self._api is None:
            self._api = Client(self._url, headers=self._key, verbose=False)
        return self._api.predict(*values, api_name=f"/{endpoint}", **fields)

    def sees(self, design: str) -> bool:
        """Whether the page would show a design."""
        answer = httpx.post(
            f"{self._url}/table/look", json={"design": design}, headers=self._key, timeout=120
        )
        return not answer.json()["fault"]

    def status(self, path: str) -> int:
        """Return the HTTP status of an address."""
        return httpx.get(f"{self._url}{path}", headers=self._key, timeout=120).status_code

    def _asked(self, question: str, asked: dict[str, Any]) -> dict[str, Any]:
        address = f"{self._url}/table/{question}"
        answer = httpx.post(address, json=asked, headers=self._key, timeout=120)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        assert not told["fault"], told["fault"]
        return told


def main() -> None:
    """Measure and print a table; the figures go into a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--tries", type=int, default=5, help="times each thing is measured")
    parser.add_argument("--sessions", type=int, default=20, help="people in the crowd")
    parser.add_argument("--workers", type=int, default=1, help="designs made at the same time")
    parser.add_argument("--steps", type=int, default=24, help="denoising steps of stop and crowd")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"wanted parts of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if "stop" in parts and args.workers > 1:
        parser.error("wanted one worker for stop: with more the next design does not wait")
    told: dict[str, Any] = {"environment": environment(), "workers": args.workers}
    rows: list[Row] = []
    if "start" in parts:
        rows += starting(args.tries)
    crowded: dict[str, Any] = {}
    if {"screen", "stop", "crowd"} & {*parts}:
        with TemporaryDirectory() as folder, studio(Path(folder), args.workers) as running:
            rows += on_screen(running.url, args.tries) if "screen" in parts else []
            rows += stopping(running.url, args.tries, args.steps) if "stop" in parts else []
            if "crowd" in parts:
                crowded = crowd(running.url, running.pid, args.sessions, steps=args.steps)
    told |= {"seconds": {row.what: list(row.seconds) for row in rows}, "crowd": crowded}
    if args.out:
        write_text(args.out, json.dumps(told, indent=2) + "\n")
    print(table(rows, crowded))


@contextmanager
def studio(data: Path, workers: int = 1) -> Iterator[Running]:
    """Start `orbweave ui` on a free port, wait until its models are warm, and close it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "ui.cli", "ui", "--quiet", "--port", str(port)]
    command += ["--data", str(data), "--workers", str(workers)]
    url, began = f"http://127.0.0.1:{port}", time.perf_counter()
    own = {"PYTHONPATH": str(ROOT), STORE_VARIABLE: str(data / "orbweave.db")}
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stdout=subprocess.DEVNULL)
    try:

        def reached(is_so: Callable[[], Any], what: str) -> float:
            def is_so_or_over() -> Any:
                assert process.poll() is None, "the studio ended by itself"
                return is_so()

            until(is_so_or_over, what)
            return time.perf_counter() - began

        first_s = reached(lambda: _answers(url), "the studio answers")
        page_s = reached(lambda: _answers(url) == 200, "the page is there")
        nobody = Person(url, "who-waits")
        warm_s = reached(lambda: "note" not in nobody.look()["columns"]["head"], "models are warm")
        yield Running(url, process.pid, first_s, page_s, warm_s)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def until(is_so: Callable[[], Any], what: str, tick_s: float = TICK_S) -> Any:
    """Wait until something is so and return it."""
    end = time.perf_counter() + PATIENCE_S
    while not (found := is_so()):
        assert time.perf_counter() < end, f"waited {PATIENCE_S:.0f} s in vain until {what}"
        time.sleep(tick_s)
    return found


def _answers(url: str) -> int:
    """Return the status of the answer; 0 while there is none."""
    try:
        return httpx.get(url, timeout=60).status_code
    except httpx.TransportError:
        return 0


def starting(tries: int) -> list[Row]:
    """Start studios one after another, each on an empty folder."""
    runs = []
    for n in range(tries):
        with TemporaryDirectory() as folder, studio(Path(folder)) as running:
            runs.append(running)
        _tell(f"start {n + 1} of {tries}: first answer after {running.first_s:.1f} s")
    return [
        Row("first request answered", [run.first_s for run in runs]),
        Row("the page is there", [run.page_s for run in runs]),
        Row("models are warm", [run.warm_s for run in runs]),
    ]


def on_screen(url: str, tries: int, chromium: str = CHROMIUM) -> list[Row]:
    """Press Design in a browser and wait for words and a picture: new persons, other concepts."""
    from playwright.sync_api import sync_playwright

    words: list[float] = []
    pictures: list[float] = []
    concepts = [json.loads(line)["concept"] for line in OTHERS.read_text("utf-8").splitlines()]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for n in range(tries):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(PATIENCE_S * 1000)
            page.goto(url)
            page.wait_for_selector(".ow-welcome")
            page.fill("#concept textarea", concepts[n % len(concepts)])
            page.evaluate(WATCH)
            page.click("#begin")
            page.wait_for_function("'picture' in window.seen")
            seen = page.evaluate("window.seen")
            words.append((seen["words"] - seen["pressed"]) / 1000)
            pictures.append((seen["picture"] - seen["pressed"]) / 1000)
            _tell(f"screen {n + 1} of {tries}: words {words[-1]:.1f} s, picture {pictures[-1]:.1f}")
            page.evaluate("document.querySelector('[data-do=stop]')?.click()")
            page.wait_for_selector(".ow-status.ow-stopped, .ow-status.ow-done")
            page.close()
        browser.close()
    return [Row("first words on the screen", words), Row("first picture on the screen", pictures)]


def stopping(url: str, tries: int, steps: int) -> list[Row]:
    """Stop designs for which another person waits."""
    stages: tuple[Literal["talking", "drawing"], ...] = ("talking", "drawing")
    rows = []
    for stage in stages:
        freed = [_freed_s(url, stage, n, steps) for n in range(tries)]
        _tell(f"stop while {stage}: {', '.join(f'{s:.2f}' for s in freed)} s")
        rows.append(Row(f"slot free after stop, {stage}", freed))
    return rows


def _freed_s(url: str, stage: str, n: int, steps: int) -> float:
    """Return the seconds from stopping one design until the next one in the queue runs."""
    one, two = Person(url, "who-stops"), Person(url, "who-waits")
    settings = {"images": 4, "steps": steps}
    first = one.ask("design", CONCEPT, seed=n, **settings)["id"]
    until(lambda: stage_of(one.look(first)) == stage, f"the team is {stage}")
    second = two.ask("design", CONCEPT, seed=n, **settings)["id"]
    assert two.look(second)["status"] == "queued", "a second design ran beside the first"
    pressed = time.perf_counter()
    one.stop(first)
    until(lambda: two.look(second)["status"] == "running", "the next design runs")
    freed = time.perf_counter() - pressed
    assert one.look(first)["status"] == "stopped", one.look(first)["status"]
    two.stop(second)
    until(lambda: two.look(second)["status"] in ENDED, "it is stopped too")
    return freed


def stage_of(seen: dict[str, Any]) -> str:
    """Return what the team does by what the page shows: `talking`, `drawing` or another status."""
    shown = {key: part["html"] for key, part in seen["parts"].items()}
    if "drawing, step" in shown.get("head", ""):
        return "drawing"
    heard = re.compile(r'class="ow-text">\s*[^<\s][^<]*<span class="ow-caret"')
    if any(key.startswith("turn-") and heard.search(html) for key, html in shown.items()):
        return "talking"
    return str(seen["status"])


def crowd(url: str, pid: int, n: int, **settings: Any) -> dict[str, Any]:
    """Let many people design at once; return whether all ended, who saw what, and what it took.

    Args:
        url: Of the studio.
        pid: Its process, whose memory is told.
        n: People.
        settings: Of every design; else one round and one picture.
    """
    people = [Person(url, f"number-{i:03}") for i in range(n)]
    before_mb = memory_mb(pid, "VmRSS")
    began = time.perf_counter()
    with ThreadPoolExecutor(n) as pool:
        asked = {"rounds": 1, "images": 1, **settings}
        stays = list(pool.map(lambda i: _stay(people[i], i, asked), range(n)))
    seconds = time.perf_counter() - began
    looks = sorted(look for stay in stays for look in stay.looks_s)
    return {
        "sessions": n,
        "done": sum(stay.status == "done" for stay in stays),
        "ended": sum(stay.status in ENDED for stay in stays),
        "leaks": leaks(people, stays),
        "seconds": seconds,
        "look_s": {"median": statistics.median(looks), "p95": looks[int(0.95 * (len(looks) - 1))]},
        "before_mb": before_mb,
        "peak_mb": memory_mb(pid, "VmHWM"),
    }


@dataclass(frozen=True)
class Stay:
    """One person's design in the crowd."""

    mark: str
    """A word of its concept that nobody else's has."""
    design: str
    status: str
    looks_s: list[float]
    """How long every look at the page took."""


def _stay(person: Person, i: int, settings: dict[str, Any]) -> Stay:
    mark = f"zq{i:03}x"
    design = person.ask("design", f"{CONCEPT}, called {mark}", seed=i, **settings)["id"]
    looks: list[float] = []

    def status() -> str:
        began = time.perf_counter()
        seen = person.look(design)["status"]
        looks.append(time.perf_counter() - began)
        return seen if seen in ENDED else ""

    return Stay(mark, design, until(status, f"design {i} ends", POLL_S), looks)


def leaks(people: Sequence[Person], stays: Sequence[Stay]) -> list[str]:
    """Return in words whatever anybody was shown of another's designs."""
    found = []
    wholes = [person.ask("get_design", s.design) for person, s in zip(people, stays, strict=True)]
    for i, (person, own) in enumerate(zip(people, stays, strict=True)):
        listed = [each["id"] for each in person.ask("designs")]
        if listed != [own.design]:
            found.append(f"{own.mark} is told of {listed}")
        told = json.dumps(wholes[i])
        found += [f"{own.mark} is shown {s.mark}" for s in stays if s is not own and s.mark in told]
        other, whole = stays[i - 1], wholes[i - 1]
        if other is own:
            continue
        if person.sees(other.design):
            found.append(f"{own.mark} is shown the design of {other.mark}")
        paths = [p["address"] for version in whole["versions"] for p in version["pictures"]]
        for path in [*paths, f"/sitting/{other.design}/design.zip"]:
            if (status := person.status(path)) != 404:
                found.append(f"{own.mark} is answered {status} for {path} of {other.mark}")
    return found


def memory_mb(pid: int, field: Literal["VmRSS", "VmHWM"]) -> float | None:
    """Return the memory a process holds, or its peak; None where the system does not tell."""
    try:
        told = Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return None
    kilobytes = re.search(rf"^{field}:\s+(\d+) kB", told, re.MULTILINE)
    return int(kilobytes[1]) / 1000 if kilobytes else None


def table(rows: Sequence[Row], crowded: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    head = ["| what | median, s | least to most | tries | limit, s |", "|---|---|---|---|---|"]
    lines = head if rows else []
    for row in rows:
        limit = LIMITS_S.get(row.what)
        held = sum(s <= limit for s in row.seconds) if limit else 0
        told = f"{limit:g}: held by {held} of {len(row.seconds)}" if limit else "–"
        lines.append(
            f"| {row.what} | {statistics.median(row.seconds):.2f} "
            f"| {min(row.seconds):.2f} to {max(row.seconds):.2f} | {len(row.seconds)} | {told} |"
        )
    if crowded:
        look, leaked = crowded["look_s"], crowded["leaks"]
        memory = (
            f"; memory {crowded['before_mb']:.0f} MB before, {crowded['peak_mb']:.0f} MB at most"
            if crowded["before_mb"] is not None and crowded["peak_mb"] is not None
            else ""
        )
        lines += [
            "",
            f"{crowded['sessions']} people at once: {crowded['ended']} designs ended, "
            f"{crowded['done']} of them done, in {crowded['seconds']:.0f} s; "
            f"{'; '.join(leaked) or 'nobody was shown anything of another'}; a look at the page "
            f"took {look['median']:.3f} s in the median, {look['p95']:.3f} s at 95 %{memory}.",
        ]
    return "\n".join(lines)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
