"""What the form on the page may ask for, checked before it reaches the queue."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, field_validator

from agents.roles import TEAMS
from orbweave.errors import UsageError, shown
from orbweave.models import list_models
from orbweave.records import SCALES, Brief, Domain, Record, Scale, Targets, clean_concept
from ui.matrix import BatchRow
from ui.rendering import RenderSettings, consecutive, parse_size

__all__ = [
    "MAX_IMAGES",
    "MAX_ROUNDS",
    "MAX_SIDE_PX",
    "MAX_STEPS",
    "Wish",
    "first_fault",
    "models",
    "teams",
]

MAX_ROUNDS = 5
MAX_IMAGES = 8
MAX_STEPS = 100
MAX_SIDE_PX = 1024
"""A page is shared: nobody may hold the machine for hours. The command line knows no such
bounds."""
SPOKEN = {
    "direction_deg": "direction in degrees",
    "images": "number of pictures",
    "spacing_px": "spacing in pixels",
}
"""What fields are called to people, where their names do not say it."""


def teams() -> list[str]:
    """Return the names of the shipped teams, the default first."""
    names = sorted(path.stem for path in TEAMS.glob("*.yaml"))
    return sorted(names, key=lambda name: name != "default")


def models(kind: str) -> list[str]:
    """Return the names of the catalogue's models of a kind, `language` or `image`.

    Only these can be chosen on the page: a folder or an address typed there would be opened
    on the server.
    """
    return [entry.name for entry in list_models() if entry.kind == kind]


class Wish(Record):
    """The fields of the form as a person filled them in."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_max_length=20_000)

    concept: str
    scale: Scale = SCALES[0]
    domains: tuple[Domain, ...] = ()
    team: str = "default"
    model: str = ""
    """Language model of every speaker; empty leaves each role the team's own."""
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] = 2
    images: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 2
    seed: int = 0
    image_model: str = "loom"
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 24
    guidance: Annotated[float, Field(ge=0.0, le=20.0)] = 3.0
    size: str = "256"
    structure: str = "auto"
    solid_fraction: float | None = None
    direction_deg: float | None = None
    spacing_px: float | None = None

    @field_validator("solid_fraction", "direction_deg", "spacing_px", mode="before")
    @classmethod
    def _empty_is_nothing(cls, value: Any) -> Any:
        return (value.strip() or None) if isinstance(value, str) else value

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Wish:
        """Return the wish of a form.

        Raises:
            UsageError: a field is out of its range, or no field of the form.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as err:
            raise UsageError(first_fault(err)) from err

    def row(self) -> BatchRow:
        """Return the order for the team.

        Raises:
            UsageError: something is not on offer; ConceptError: the concept is no concept.
        """
        concept = clean_concept(self.concept)
        _check("team", self.team, teams())
        _check("language model", self.model, ["", *models("language")])
        _check("image model", self.image_model, models("image"))
        _check("geometry", self.structure, ["auto", "none"])
        size = _size(self.size)
        if size is not None and max(size) > MAX_SIDE_PX:
            raise UsageError(f"wanted at most {MAX_SIDE_PX} pixels a side, got {max(size)}")
        settings = RenderSettings(
            self.image_model, steps=self.steps, guidance=self.guidance, size_px=size
        )
        try:
            targets = Targets(
                solid_fraction=self.solid_fraction,
                direction_deg=self.direction_deg,
                spacing_px=self.spacing_px,
            )
            brief = Brief(
                concept=concept,
                scale=self.scale,
                domains=self.domains,
                targets=targets,
                seed=self.seed,
            )
        except ValidationError as err:
            raise UsageError(first_fault(err)) from err
        _check_seeds(self.seed, self.images)
        return BatchRow(
            number=0,
            brief=brief,
            rounds=self.rounds,
            images=self.images,
            team=self.team,
            model=self.model or None,
            structure=self.structure,
            render=settings.request("", "", None, (self.seed,)),
        )


def _check(what: str, value: str, known: list[str]) -> None:
    if value not in known:
        raise UsageError(f"wanted a {what} of {', '.join(filter(None, known))}; got {shown(value)}")


def _size(text: str) -> tuple[int, int] | None:
    """Return (width, height) in pixels; a page has no options with dashes to speak of."""
    try:
        return parse_size(text)
    except UsageError as err:
        raise UsageError(f"wanted a size as 256 or 512x384, got {shown(text)}") from err


def _check_seeds(seed: int, images: int) -> None:
    try:
        consecutive(seed, images)
    except UsageError as err:
        raise UsageError(
            f"wanted {images} seeds below {2**32:,}, got {seed:,} for the first; "
            "choose a smaller seed"
        ) from err


def first_fault(err: ValidationError) -> str:
    """Say of the first field that cannot be used what is wrong with it."""
    first = err.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    where = SPOKEN.get(where, where.replace("_", " "))
    if first["input"] is None:
        return f"wanted a {where}, the field is empty"
    # After the comma pydantic tells of its parser.
    why = first["msg"].lower().partition(", unable to parse")[0]
    return f"wanted a {where} that can be used, got {shown(first['input'])}: {why}"
