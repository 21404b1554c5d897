"""Pictures of every page of the studio: a real `orbweave ui`, real designs, a real browser.

    python benchmarks/screenshots.py --data runs/screenshots --out docs/pictures

What the pages show is made by the embedded models, which takes some minutes, and stays in the
data folder: to take the pictures anew takes half a minute. Every page is taken by day and by
night, 1280 and 390 pixels wide. Look at each before it is committed.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from studio import CHROMIUM, FLAGS, Running, studio, until  # beside this script

from orbweave.files import write_text

KEY = {"authorization": "Bearer whose-pages-are-on-the-pictures"}
MADE = "made.json"
"""Names of what the pages show, in the data folder."""
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
SCHEMES = ("light", "dark")
CONCEPT = "a filter membrane that combines spider silk and leaf veins"
DESIGNS: dict[str, dict[str, Any]] = {
    "main": {"concept": CONCEPT, "domains": ["spider-silk", "leaf"], "solid_fraction": 0.4},
    "plate": {"concept": "a tough plate of mineral bricks and collagen glue", "rounds": 1},
    "sheet": {"concept": "a packaging sheet that repels water like a lotus leaf", "rounds": 1},
    "other": {"concept": CONCEPT, "rounds": 1, "images": 1, "model": "silk"},
}
TABLE = (
    "name,concept\n"
    "dew,a net that catches dew like a spider web\n"
    "cone,a facade panel that moves like a pine cone\n"
    "hinge,a tough hinge of collagen fibres\n"
)
MIX = {"first": "silk", "second": "leaf", "profile": "own", "self_attn_last": "0.9"}
MIX |= {"mlp_middle": "0.25", "rest_first": "0.3"}
NEEDS = {
    "branch": ("main",),
    "judging": ("main", "other"),
    "library": ("main", "plate", "sheet"),
}
"""What must be made before something else, or before a picture."""
SEEN = """() => [...document.images].every((image) => {
  const { top, bottom, left, right, height } = image.getBoundingClientRect();
  const isOut = bottom < 0 || top > innerHeight || right < 0 || left > innerWidth;
  return !height || isOut || (image.complete && image.naturalWidth);
})"""
"""Whether every image in the window is there."""


class Shot(NamedTuple):
    """One page as it is taken."""

    name: str
    path: str
    """Address; names of what was made are filled in."""
    ready: str
    """Selector of what must be there."""
    at: str = ""
    """Selector of what shall be at the top; empty for the page's own top."""
    opens: str = ""
    """Selector of details that are opened first."""


SHOTS = (
    Shot("welcome", "/", ".ow-welcome"),
    Shot("design", "/?design={main}", ".ow-done"),
    Shot("checks", "/?design={main}", ".ow-done", "#turn-0", "#checks-0"),
    Shot("prompt", "/?design={main}", ".ow-done", ".ow-prompt"),
    Shot("beside", "/?design={main}&beside={branch}", ".ow-steps", ".ow-head"),
    Shot("library", "/library", ".ow-card"),
    Shot("batch", "/batch?at={batch}", "figure.ow-card", ".ow-head"),
    Shot("merge", "/merge?at={compared}", ".ow-yaml"),
    Shot("geometry", "/merge?at={compared}", ".ow-geometry img", ".ow-head"),
    Shot("slider", "/merge?at={slider}", ".ow-place img", ".ow-head"),
    Shot("judge", "/judge?at={judging}", ".ow-sides", ".ow-head"),
    Shot("models", "/models", ".ow-plot"),
    Shot("plots", "/models", ".ow-plot", ".ow-plots"),
)


def main() -> None:
    """Make what is missing and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of what the pages show")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--only", default="", help="names of pictures, with commas")
    args = parser.parse_args()
    names = [shot.name for shot in SHOTS]
    wanted = args.only.split(",") if args.only else names
    if unknown := set(wanted) - set(names):
        parser.error(f"wanted pictures of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)
    with studio(args.data.absolute()) as running:
        shots = [shot for shot in SHOTS if shot.name in wanted]
        made = furnish(running, shown_on(shots), args.data / MADE)
        take(running.url, made, shots, args.out)


def shown_on(shots: Sequence[Shot]) -> set[str]:
    """Return what must have been made for pictures."""
    named = {name for shot in shots for name in re.findall(r"\{(\w+)\}", shot.path)}
    return named | {
        need for name in {*named, *(shot.name for shot in shots)} for need in NEEDS.get(name, ())
    }


def furnish(running: Running, wanted: Collection[str], record: Path) -> dict[str, str]:
    """Make what is wanted and not there yet; return the names of all there is."""
    made: dict[str, str] = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    house = House(running.url)
    steps: dict[str, Callable[[], str]] = {
        **{name: lambda asked=asked: house.design(**asked) for name, asked in DESIGNS.items()},
        "branch": lambda: house.branch(made["main"]),
        "batch": house.batch,
        "compared": lambda: house.mix("compare", {}),
        "slider": lambda: house.mix("slide", {"concept": CONCEPT, "step": "0.25"}),
        "judging": house.judging,
    }
    for name, make in steps.items():
        if name in wanted and name not in made:
            print(f"making {name}", file=sys.stderr, flush=True)
            made[name] = make()
            write_text(record, json.dumps(made, indent=2) + "\n")
    for name, stars in (("main", 5), ("plate", 3)):
        if name in made:
            house.at_table(made[name], "rate", value=stars)
            house.at_table(made[name], "pin", text="for the paper")
    return made


class House:
    """Makes what the pages show, by the addresses their scripts use."""

    def __init__(self, url: str) -> None:
        from gradio_client import Client

        self._api = Client(url, headers=KEY, verbose=False)
        self._http = httpx.Client(base_url=url, headers=KEY, timeout=600)

    def design(self, **asked: Any) -> str:
        """Make a design and return its name once it is done."""
        name: str = self._api.predict(api_name="/design", **asked)["id"]
        return self._done(name)

    def branch(self, name: str) -> str:
        """Go on from another text of the first expert, beside the design it belongs to."""
        first = self._api.predict(name, api_name="/get_design")["turns"][0]
        said = f"{first['text'].partition('] ')[0]}] Thick threads end at every vein."
        return self._done(self.at_table(name, "edit", turn=0, text=said, branches=True))

    def at_table(self, name: str, deed: str, **fields: Any) -> str:
        """Press a button of a design; return the design that is shown then."""
        return str(self._asked("/table/act", design=name, do=deed, **fields)["design"])

    def batch(self) -> str:
        """Run a table and return the batch's name once it is done."""
        data = f"data:text/csv;base64,{base64.b64encode(TABLE.encode()).decode()}"
        files = [{"name": "ideas.csv", "data": data}]
        name = self._pressed("batch", "add", fields={"images": "1"}, files=files)
        self._pressed("batch", "run", at=name)
        self._shown("batch", name, "3 of 3 designs done")
        return name

    def mix(self, deed: str, fields: dict[str, str]) -> str:
        """Compare or slide two models and return the task's name once it is done."""
        name = self._pressed("merge", deed, fields=MIX | fields)
        self._shown("merge", name, "ow-status ow-done")
        return name

    def judging(self) -> str:
        """Begin to judge the designs of one concept."""
        html = self._asked("/room/judge/look")["parts"]["begin"]["html"]
        key = re.search(r'name="group-1" value="([^"]+)"', html)
        assert key, "no two designs can be compared"
        return self._pressed("judge", "add", fields={"group-1": key[1]})

    def _done(self, name: str) -> str:
        def status() -> str:
            told = str(self._asked("/table/look", design=name)["status"])
            return "" if told in ("queued", "running") else told

        ended = until(status, f"the design {name} ends", 1.0)
        assert ended == "done", f"the design {name} is {ended}"
        return name

    def _shown(self, room: str, at: str, text: str) -> None:
        def is_shown() -> bool:
            parts = self._asked(f"/room/{room}/look", at=at)["parts"].values()
            return any(text in part["html"] for part in parts)

        until(is_shown, f"the {room} page shows {text!r}", 1.0)

    def _pressed(self, room: str, deed: str, **asked: Any) -> str:
        return str(self._asked(f"/room/{room}/act", do=deed, **asked)["at"])

    def _asked(self, path: str, **asked: Any) -> dict[str, Any]:
        answer = self._http.post(path, json=asked)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        assert not told["fault"], told["fault"]
        return told


def take(url: str, made: dict[str, str], shots: Sequence[Shot], out: Path) -> None:
    """Take every page, by day and by night, wide and narrow, into `studio-*.png`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for size, (width, height) in SIZES.items():
            for scheme in SCHEMES:
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    extra_http_headers=KEY,
                    reduced_motion="reduce",
                )
                for shot in shots:
                    page.goto(url + shot.path.format(**made))
                    page.wait_for_selector(shot.ready, state="attached", timeout=120_000)
                    if shot.opens:
                        page.locator(shot.opens).evaluate("details => { details.open = true; }")
                    if shot.at:
                        page.locator(shot.at).last.evaluate("part => part.scrollIntoView()")
                    page.wait_for_function(SEEN)
                    page.screenshot(path=out / f"studio-{shot.name}-{scheme}-{size}.png")
                    print(f"took {shot.name}, {scheme}, {size}", file=sys.stderr, flush=True)
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
