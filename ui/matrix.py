"""What a batch shall make: the rows of a table times the values given for all of them.

A cell of the table comes before a value given for all rows. `product` makes one row for each
combination of those values, `zip` gives the first value to the first row and so on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from orbweave.errors import OrbweaveError, UsageError, shown
from orbweave.files import sha256_file
from orbweave.models import ModelRef
from orbweave.records import Brief, Record, RenderRequest, Targets, clean_concept
from ui import table
from ui.rendering import chooser_for, consecutive, parse_size
from ui.table import Fault
from ui.target import slug

__all__ = ["COLUMNS", "BatchRow", "Combine", "expand", "parse_seeds"]

T = TypeVar("T")
Combine = Literal["product", "zip"]
BRIEF = ("scale", "domains", "seed")
TARGETS = ("solid_fraction", "direction_deg", "spacing_px")
RENDERING = ("image_model", "strength", "scheduler", "steps", "guidance", "size")
RUN = ("images", "rounds", "team", "model", "structure")
COLUMNS = ("concept", "name", *BRIEF, *RUN, *RENDERING, *TARGETS)
"""What a table may say of a row; the options of the command have the same names."""
MAX_NAME_CHARS = 200
MAX_DIGITS = 100
"""Of a number that is read here; Python itself refuses thousands."""
MAX_ROWS = 1_000_000
IMAGES = 2
"""Pictures of a version where nothing else is said, as in `orbweave design`."""


class BatchRow(Record):
    """One design of a batch."""

    number: int
    """Row of the table it came from."""
    name: str = ""
    """What the table calls it; a label, never a path."""
    brief: Brief
    rounds: Annotated[int, Field(ge=1, le=10)] = 1
    images: Annotated[int, Field(ge=1, le=64)] = IMAGES
    team: str = "default"
    """A shipped team, or the absolute path of a YAML file."""
    model: str | None = None
    """Language model of every speaker; None leaves each role the team's own."""
    structure: str = "auto"
    """`auto`, `none`, or the absolute path of a file with a structure."""
    render: RenderRequest
    """Settings of the pictures; its words, geometry and seeds mean nothing here."""
    folder: str = ""
    """Name of the design folder: a few words, the seed, and a hash of all that decides the
    design, so that the same row has the same folder in every run."""

    @property
    def profile(self) -> str:
        """What decides how long the row takes, in words."""
        r = self.render
        return (
            f"{self.model or f'team {self.team}'}, {self.rounds} rounds; {self.images} pictures, "
            f"{r.model}, {r.width}x{r.height}, {r.scheduler}, {r.steps} steps"
        )

    def settings(self) -> dict[str, Any]:
        """Return what people vary, by the names of `COLUMNS`."""
        brief, render = self.brief, self.render
        return {
            "concept": brief.concept,
            "scale": brief.scale,
            "domains": ",".join(brief.domains),
            "seed": brief.seed,
            "images": self.images,
            "rounds": self.rounds,
            "team": self.team,
            "model": self.model or "",
            "structure": self.structure,
            "image_model": render.model,
            "strength": render.strength,
            "scheduler": render.scheduler,
            "steps": render.steps,
            "guidance": render.guidance,
            "size": f"{render.width}x{render.height}",
            **brief.targets.model_dump(),
        }


def expand(
    rows: Sequence[table.Row], options: Mapping[str, Sequence[str]], combine: Combine
) -> tuple[list[BatchRow], list[Fault]]:
    """Return the rows of the batch, in the order of the table, and everything that is wrong.

    Args:
        rows: The table.
        options: Values for all rows, by the names of `COLUMNS`; an empty list gives none.
        combine: How they meet the rows.
    """
    given = {name: list(values) for name, values in options.items() if values}
    faults = [
        Fault(None, name, f"wanted 1 value or one for each of {len(rows)} rows, got {len(values)}")
        for name, values in given.items()
        if combine == "zip" and len(values) not in (1, len(rows))
    ]
    n_combined = _n_combinations(given) if combine == "product" else 1
    if len(rows) * n_combined > MAX_ROWS:
        faults.append(Fault(None, "", f"wanted at most {MAX_ROWS:,} rows of the batch in all"))
    if faults:
        return [], faults
    checker = _Checker()
    made: dict[str, BatchRow] = {}
    told: dict[Fault, None] = {}  # a set in order: combinations repeat a row's own faults
    for place, row in enumerate(rows):
        for values in _values(row, given, combine, place):
            found, wrong = checker.row(row.number, values | row.cells)
            if found is not None and found.folder in made:
                first = made[found.folder].number
                wrong = [Fault(row.number, "", f"asks for the same design as row {first}")]
            elif found is not None:
                made[found.folder] = found
            told.update(dict.fromkeys(wrong))
    return list(made.values()), list(told)


def parse_seeds(texts: Sequence[str]) -> list[str]:
    """Return the seeds of texts such as `7`, `1,2,3` or `0-9`.

    Raises:
        UsageError: something else was given.
    """
    seeds: list[str] = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise UsageError(f"wanted --seed as 7, 1,2,3 or 0-9, got {shown(part)}")
        bounds = int(first), int(last or first)
        if not 0 <= bounds[1] - bounds[0] < MAX_ROWS:
            raise UsageError(f"wanted --seed as a range upwards, got {shown(part)}")
        seeds += map(str, range(bounds[0], bounds[1] + 1))
    return seeds


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= MAX_DIGITS


def _n_combinations(given: Mapping[str, Sequence[str]]) -> int:
    n = 1
    for values in given.values():
        n *= len(values)
    return n


def _values(
    row: table.Row, given: Mapping[str, Sequence[str]], combine: Combine, place: int
) -> list[dict[str, str]]:
    """Return the values for all rows as they fall on this one."""
    open_ = {name: values for name, values in given.items() if name not in row.cells}
    if combine == "zip":
        return [{n: values[place % len(values)] for n, values in open_.items()}]
    return [dict(zip(open_, values, strict=True)) for values in product(*open_.values())]


class _Checker:
    """Turns cells into rows; what many rows share is checked once."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[Any, list[tuple[str, str]]]] = {}

    def row(self, number: int, cells: Mapping[str, str]) -> tuple[BatchRow | None, list[Fault]]:
        """Return a row, None if anything is wrong with it, and what is wrong."""
        wrong: list[tuple[str, str]] = []

        def part(names: Sequence[str], make: Callable[[dict[str, str]], T]) -> T | None:
            picked = {name: cells[name] for name in names if name in cells}
            key = (make, tuple(picked.items()))
            if key not in self._known:
                self._known[key] = _made(make, picked)
            made, faults = self._known[key]
            wrong.extend(faults)
            return made  # type: ignore[no-any-return]

        concept = _made(_concept, dict(cells))  # every row has its own: nothing to remember
        wrong += concept[1]
        brief, targets = part(BRIEF, _brief), part(TARGETS, _targets)
        render, run = part(RENDERING, _render), part(RUN, _run)
        seeds = part(("seed", "images"), _seeds)
        if wrong or not (concept[0] and brief and targets and render and run and seeds):
            told = dict.fromkeys(wrong)
            return None, [Fault(number, column, message) for column, message in told]
        whole = brief.model_copy(update={"concept": concept[0][0], "targets": targets})
        values = run | {"brief": whole, "render": render, "number": number, "name": concept[0][1]}
        contents = values.pop("contents")
        row = BatchRow.model_construct(**values)
        return row.model_copy(update={"folder": _folder(row, contents)}), []


def _made(
    make: Callable[[dict[str, str]], Any], cells: dict[str, str]
) -> tuple[Any, list[tuple[str, str]]]:
    """Return (what was made or None, [(column, what is wrong)]).

    A cell that cannot be used is told and left out, so that what is wrong with others is told too.
    """
    cells, wrong = dict(cells), list[tuple[str, str]]()
    while True:
        try:
            made = make(cells)
        except ValidationError as err:
            return None, wrong + [_told(error) for error in err.errors()]
        except _CellError as err:
            if cells.pop(err.column, None) is None:  # told already, or never there
                return None, wrong or [(err.column, err.message)]
            wrong.append((err.column, err.message))
        else:
            return None if wrong else made, wrong


class _CellError(Exception):
    """A cell that cannot be used."""

    def __init__(self, column: str, message: str) -> None:
        self.column = column
        self.message = message


def _told(error: Any) -> tuple[str, str]:
    """Return (column, message) of one error of pydantic."""
    field = str(error["loc"][0])
    column = {"width": "size", "height": "size"}.get(field, field)
    return column, f"got {shown(error['input'])}: {error['msg'].lower()}"


def _cell(column: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except OrbweaveError as err:
        raise _CellError(column, str(err)) from err


def _concept(cells: dict[str, str]) -> tuple[str, str]:
    """Return (concept, name)."""
    name = " ".join(cells.get("name", "").split())
    if not name.isprintable() or len(name) > MAX_NAME_CHARS:
        message = f"wanted up to {MAX_NAME_CHARS} printable characters, got {shown(name)}"
        raise _CellError("name", message)
    if not cells.get("concept"):
        raise _CellError("concept", "wanted a concept, the cell is empty")
    return _cell("concept", lambda: clean_concept(cells["concept"])), name


def _brief(cells: dict[str, str]) -> Brief:
    values: dict[str, Any] = {"concept": "checked apart", **cells}
    if "domains" in cells:
        values["domains"] = [d.strip() for d in cells["domains"].split(",") if d.strip()]
    return Brief.model_validate(values)


def _seeds(cells: dict[str, str]) -> bool:
    """Check that the last picture's seed fits too; what is no number is told elsewhere."""
    seed, images = cells.get("seed", "0"), cells.get("images", str(IMAGES))
    if _is_number(seed) and _is_number(images):
        _cell("seed", lambda: consecutive(int(seed), min(int(images), 64)))
    return True


def _targets(cells: dict[str, str]) -> Targets:
    for column, text in cells.items():
        if text.strip("+-").lower() in {"inf", "infinity", "nan"}:
            raise _CellError(column, f"wanted a number, got {shown(text)}")
    return Targets.model_validate(cells)


def _render(cells: dict[str, str]) -> RenderRequest:
    """Return the settings of the pictures; what no cell says follows the model's preset."""
    from imagegen.presets import preset
    from imagegen.samplers import check_sampler

    given = dict(cells)
    if "size" in cells:
        size = _cell("size", lambda: parse_size(given.pop("size")))
        assert size is not None
        given |= {"width": str(size[0]), "height": str(size[1])}
    model = given.pop("image_model", "loom")
    usual = preset(model)
    if "image_model" in cells:
        _cell("image_model", lambda: ModelRef.parse(usual["model"]))
    if "scheduler" in cells:
        _cell("scheduler", lambda: check_sampler(cells["scheduler"]))
    # The preset's own model and adapters are laid in when the row is made, see `RenderSettings`.
    values = {name: value for name, value in usual.items() if name != "adapters"}
    return RenderRequest.model_validate({"prompt": "", **values, **given, "model": model})


def _run(cells: dict[str, str]) -> dict[str, Any]:
    """Return the values of `RUN`, and under `contents` the hashes of the files they name."""
    from agents.roles import TEAMS, load_team

    team, structure = cells.get("team", "default"), cells.get("structure", "auto")
    contents = {}
    if team not in {path.stem for path in TEAMS.glob("*.yaml")}:
        file = Path(team).expanduser().absolute()
        _cell("team", lambda: load_team(file))
        team, contents["team"] = str(file), sha256_file(file)
    if structure not in {"auto", "none"}:
        file = Path(structure).expanduser().absolute()
        _cell("structure", lambda: chooser_for(str(file)))
        structure, contents["structure"] = str(file), sha256_file(file)
    if "model" in cells:
        _cell("model", lambda: ModelRef.parse(cells["model"]))
    counts = _Counts.model_validate({n: cells[n] for n in ("images", "rounds") if n in cells})
    return {
        "team": team,
        "structure": structure,
        "model": cells.get("model"),
        "images": counts.images,
        "rounds": counts.rounds,
        "contents": contents,
    }


class _Counts(Record):
    images: Annotated[int, Field(ge=1, le=64)] = IMAGES
    rounds: Annotated[int, Field(ge=1, le=10)] = 1


def _folder(row: BatchRow, contents: Mapping[str, str]) -> str:
    """Return the folder's name; `contents` stand for files, wherever these lie."""
    decides = {**row.settings(), **contents}
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    return f"{slug(row.brief.concept)}-{row.brief.seed}-{digest}"
