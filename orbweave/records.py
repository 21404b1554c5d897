"""The values that travel between packages: frozen, typed, JSON round-trip.

    Brief -> Turn -> ImagePrompt -> RenderRequest -> Picture -> Measurement -> Critique -> Design

Unknown keys are refused, so a misspelt field in a file from outside is an error and
not a silence. `schema_version` changes when a reader of old files must know.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orbweave.errors import ConceptError, shown

__all__ = [
    "Anatomy",
    "Brief",
    "COMBINATIONS",
    "Check",
    "Citation",
    "Combination",
    "Connectivity",
    "Corpus",
    "Critique",
    "DOMAINS",
    "Design",
    "Domain",
    "ImagePrompt",
    "LIGHTS",
    "Light",
    "MAX_CONCEPT_CHARS",
    "Measurement",
    "Motif",
    "Order",
    "PhraseOrigin",
    "Picture",
    "RenderRequest",
    "SCALES",
    "SPACING_BOUNDS",
    "Scale",
    "Sizes",
    "Skeleton",
    "Structure",
    "Symmetry",
    "THICKNESS_BOUNDS",
    "Targets",
    "Turn",
    "clean_concept",
]

SCHEMA_VERSION: Literal[1] = 1
MAX_CONCEPT_CHARS = 2_000
"""A concept is a sentence or a paragraph; a paper belongs into `ingest`."""

Domain = Literal["spider-silk", "collagen", "leaf", "biocomposite"]
DOMAINS: tuple[Domain, ...] = ("spider-silk", "collagen", "leaf", "biocomposite")
Scale = Literal["microstructure", "component", "architecture", "urban"]
SCALES: tuple[Scale, ...] = ("microstructure", "component", "architecture", "urban")
Combination = Literal["single", "overlay", "inclusion", "half", "graded"]
COMBINATIONS: tuple[Combination, ...] = ("single", "overlay", "inclusion", "half", "graded")
Light = Literal["soft", "raking", "backlit", "electron", "glossy"]
LIGHTS: tuple[Light, ...] = ("soft", "raking", "backlit", "electron", "glossy")
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Record(BaseModel):
    """Base of all records: immutable, strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def clean_concept(text: str) -> str:
    """Return the concept as one line of normalised text (NFC, single spaces).

    Control and zero-width formatting characters are refused, for they could repaint a
    terminal; joiners and direction marks, which emoji and right-to-left scripts need,
    are kept.

    Raises:
        ConceptError: empty, longer than `MAX_CONCEPT_CHARS`, or with control characters.
    """
    kept = "".join(" " if c in "\n\r\t" else c for c in text)
    bad = next((c for c in kept if unicodedata.category(c) in {"Cc", "Cs", "Cn"}), None)
    if bad is not None:
        raise ConceptError(
            f"wanted a concept in plain text, got the control character U+{ord(bad):04X}; "
            "remove it and try again"
        )
    concept = " ".join(unicodedata.normalize("NFC", kept).split())
    if not any(c.isalnum() or unicodedata.category(c)[0] == "S" for c in concept):
        raise ConceptError(
            f"wanted a concept in words, got {shown(text)}; say what to design, "
            'for instance "a filter membrane that combines spider silk and leaf veins"'
        )
    if len(concept) > MAX_CONCEPT_CHARS:
        raise ConceptError(
            f"wanted a concept of at most {MAX_CONCEPT_CHARS:,} characters, got "
            f"{len(concept):,}; shorten it to the idea"
        )
    return concept


class Targets(Record):
    """What the picture should measure; a field that is None is not asked for."""

    solid_fraction: Fraction | None = None
    """Share of the picture that is material, in [0, 1]."""
    direction_deg: Annotated[float, Field(ge=0.0, lt=180.0)] | None = None
    """Main direction of the lines; 0 is horizontal, anticlockwise, in [0, 180)."""
    spacing_px: Annotated[float, Field(gt=0.0)] | None = None
    """Distance between repeating elements, in pixels of the picture."""


class Brief(Record):
    """What somebody asks the team for."""

    concept: str
    scale: Scale = "microstructure"
    domains: tuple[Domain, ...] = ()
    """Experts to ask; empty means: chosen by retrieval."""
    targets: Targets = Targets()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Citation(Record):
    """One fact as it was shown to an agent."""

    id: str
    domain: str
    statement: str
    source_title: str
    source_url: str
    score: float
    """Cosine similarity to the concept, in [-1, 1]."""


class Corpus(Record):
    """Facts of a user's own that a team was given, as they were then."""

    path: str
    """Absolute, of the file."""
    sha256: str
    """Of its content."""
    n_facts: int


class Check(Record):
    """One sentence of a turn, held against the facts its speaker was given."""

    sentence: str
    verdict: Literal["supported", "plausible", "unsupported"]
    """Supported: facts hold its words and numbers. Plausible: it states no number, and shares
    words with facts. Unsupported: neither, or a fact says the opposite."""
    facts: tuple[str, ...] = ()
    """Ids of the facts that support it, that it shares words with, or that it denies."""
    why: str = ""
    """What is wrong with an unsupported sentence."""


class Turn(Record):
    """One thing one speaker said."""

    index: int
    speaker: str
    """Name as shown, e.g. `spider_silk_expert`."""
    role: Literal["human", "expert", "engineer", "critic"]
    model: str
    """The model reference that spoke; `human` for a person."""
    text: str
    cited: tuple[str, ...] = ()
    """Ids of facts named in the text that were given to the speaker."""
    unsupported: tuple[str, ...] = ()
    """Numbers with units in the text that no given fact holds."""
    checks: tuple[Check, ...] = ()
    """Its sentences in order, an engineer's only of the prompt and without those of the frame,
    which claim nothing; empty in older records, for people and for critics."""
    n_tokens: int = 0
    seconds: float = 0.0
    """Wall time of the turn; not part of what a seed repeats."""


SPACING_BOUNDS = (6.0, 96.0)
THICKNESS_BOUNDS = (0.02, 0.95)


class Motif(Record):
    """One geometry of the structure seed, in pixels of a 256-pixel picture."""

    family: str
    """A name in `imagegen.motifs.FAMILIES`."""
    spacing: Annotated[float, Field(ge=SPACING_BOUNDS[0], le=SPACING_BOUNDS[1])] = 24.0
    """Distance between repeating elements, in pixels at 256."""
    thickness: Annotated[float, Field(ge=THICKNESS_BOUNDS[0], le=THICKNESS_BOUNDS[1])] = 0.25
    """Thickness of threads, walls or veins as a share of the spacing."""
    direction_deg: Annotated[float, Field(ge=0.0, lt=180.0)] = 0.0
    """Direction of the structure's axis; 0 is horizontal, anticlockwise."""
    irregularity: Fraction = 0.3
    """0 is a perfect lattice, 1 as disordered as the family allows."""


class Structure(Record):
    """The geometry a picture starts from: one or two motifs, how they combine, a look."""

    motifs: Annotated[tuple[Motif, ...], Field(min_length=1, max_length=2)]
    combine: Combination = "single"
    look: str = "golden on black"
    """A name in `imagegen.looks.LOOKS`."""
    light: Light = "soft"
    """How the words ask for it to be lit; a seed picture is flat in every light."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _combination_fits(self) -> Structure:
        if (self.combine == "single") != (len(self.motifs) == 1):
            raise ValueError(
                f"combine={self.combine!r} does not fit {len(self.motifs)} motif(s): "
                "one motif is 'single', two need overlay, inclusion, half or graded"
            )
        return self


class PhraseOrigin(Record):
    """Which turn a phrase of the prompt came from."""

    phrase: str
    turn: int


class ImagePrompt(Record):
    """What the prompt engineer hands to the renderer."""

    title: str
    prompt: str
    negative_prompt: str = ""
    structure: Structure | None = None
    strength: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Render strength the measurements led to; None leaves what was asked for."""
    targets: Targets = Targets()
    """What its pictures should measure: what the brief wants and else what the structure of
    the first version measures as it is drawn."""
    revises: Annotated[int, Field(ge=0)] | None = None
    """Version it was made from, the best until then; None for a first one."""
    changes: tuple[str, ...] = ()
    """What was changed in the structure seed against that version, a sentence each."""
    origins: tuple[PhraseOrigin, ...] = ()
    turn: int | None = None
    """Index of the turn that wrote it; None for a prompt typed by a person."""


class RenderRequest(Record):
    """Everything that decides the pixels of a set of pictures."""

    prompt: str
    negative_prompt: str = ""
    model: str = "loom"
    """A catalogue name, a diffusers folder, `org/name` or a single `.safetensors` checkpoint."""
    adapters: tuple[tuple[str, Annotated[float, Field(ge=-4.0, le=4.0)]], ...] = ()
    """LoRA adapters and their weights: a file, a folder, `org/name` or `org/name/file`."""
    control: str | None = None
    """A ControlNet that is given the structure: a folder or `org/name`; None takes the one in
    the model's folder, if there is one."""
    control_scale: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """How strongly a ControlNet holds the geometry; 0 leaves it out."""
    tile: bool = False
    """Whether the picture shall continue itself across its edges."""
    structure: Structure | None = None
    strength: Annotated[float, Field(gt=0.0, le=1.0)] = 0.6
    """Share of the denoising done on the structure seed; near 0 copies it, 1 leaves nothing of
    its pixels, so that only a ControlNet still holds the geometry."""
    scheduler: str = "DPM++ 2M"
    """Sampler by its A1111 name."""
    steps: Annotated[int, Field(ge=1, le=500)] = 24
    guidance: Annotated[float, Field(ge=0.0, le=50.0)] = 3.0
    width: Annotated[int, Field(ge=64, le=4096, multiple_of=8)] = 256
    height: Annotated[int, Field(ge=64, le=4096, multiple_of=8)] = 256
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**64)], ...], Field(min_length=1)] = (0,)
    """One seed per picture; picture 3 of 4 can be made again alone."""


class Picture(Record):
    """One PNG on disk; `path` is relative to the design folder where there is one."""

    path: str
    sha256: str
    seed: int
    lost_words: tuple[str, ...] = ()
    """Words of the prompt beyond the text encoder's window."""
    seconds: float = 0.0
    prompt_version: int = 0
    request: RenderRequest
    """With `seeds` holding just this picture's seed."""


class Sizes(Record):
    """How thick or wide one phase is: local thickness, each pixel of the phase counted once."""

    mean_px: float
    median_px: float
    p10_px: float
    p90_px: float


class Connectivity(Record):
    """How one phase, solid or void, hangs together."""

    n_parts: int
    largest_share: Fraction
    """Share of the phase's pixels in its largest part."""
    percolates_across: bool
    """Whether one part reaches from the left border to the right one."""
    percolates_down: bool
    """Whether one part reaches from the upper border to the lower one."""


class Skeleton(Record):
    """The middle lines of the solid as a graph."""

    branch_points: int
    end_points: int
    segments: int
    """Lines between branch points, end points and the border."""
    mean_segment_px: float | None
    median_segment_px: float | None
    total_px: float


class Order(Record):
    """Whether the lines run in parallel or about a middle."""

    parallel: Fraction
    """Coherence of the structure tensor: 1 all lines parallel."""
    radial: float
    """1 all lines point to the middle, -1 all run round it, 0 neither or as many of both."""
    polar: float
    """1 every line points to the middle or runs round it, as in a web; 0 no order, as parallels."""
    centre: tuple[float, float] | None
    """The middle in pixels (right, down) from the upper left corner."""


class Symmetry(Record):
    """Correlation of the picture with its mirrored or turned self; 1 equal, 0 unlike."""

    mirror_left_right: float
    mirror_up_down: float
    half_turn: float
    lattice_quarter_turn: float
    """Of the autocorrelation, so of the arrangement and not of each element: 1 a square lattice."""
    lattice_sixth_turn: float
    """Of the autocorrelation: 1 a hexagonal lattice."""


class Anatomy(Record):
    """The slower half of a measurement: sizes, connections, skeleton, order."""

    pores: Sizes | None
    """Local width of the void; None if there is none."""
    struts: Sizes | None
    """Local thickness of the solid; None if there is none."""
    solid: Connectivity
    """8-connected: pixels that touch at a corner hang together."""
    void: Connectivity
    """4-connected."""
    euler_number: int
    """Solid parts minus the holes in them."""
    skeleton: Skeleton
    order: Order
    repeat_px: float | None
    """Shortest shift that brings the picture back onto itself: the lattice constant."""
    repeat_deg: float | None
    """Direction of that shift, [0, 180) anticlockwise from horizontal."""
    periodicity: Fraction
    """Autocorrelation at that shift: 1 a perfect lattice, 0 none."""
    spacing_across_px: float | None
    """Dominant period across the main direction (without one, up and down)."""
    spacing_along_px: float | None
    """Dominant period along the main direction (without one, left to right)."""
    symmetry: Symmetry


class Measurement(Record):
    """Image statistics of one picture; not properties of a material."""

    picture: str
    """The picture's path as in `Picture.path`."""
    solid_fraction: Fraction
    """Share of the picture on the structure's side of Otsu's threshold; see `imagegen.phases`."""
    direction_deg: float | None
    """Main line direction, [0, 180) anticlockwise from horizontal; None if isotropic."""
    anisotropy: Fraction
    """Coherence of the structure tensor: 0 isotropic, 1 all lines parallel."""
    spacing_px: float | None
    """Dominant period of the power spectrum in pixels; None if there is none."""
    contrast: float
    """Standard deviation of luminance over its range, in [0, 0.5]."""
    threshold: Fraction | None = None
    """Luma that parts solid from void; None in a constant picture."""
    solid_side: Literal["bright", "dark"] | None = None
    """Which side of the threshold counts as solid."""
    solid_fraction_band: tuple[Fraction, Fraction] | None = None
    """Solid fraction if the threshold moves by 5 % of the luma range: how firm the number is."""
    directions_deg: tuple[float, ...] = ()
    """Up to three dominant line directions, the strongest first."""
    spacings_px: tuple[float, ...] = ()
    """Up to three periods of the power spectrum, the strongest first."""
    anatomy: Anatomy | None = None
    """Only in a full measurement."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the file: transparent, animated, one flat tone."""


class Critique(Record):
    """The critic's judgement of one prompt version and its pictures."""

    scores: dict[str, float]
    """depth, creativity, clarity, quantitative: expected score in [1, 5]."""
    advice: str
    wanted: Targets
    measured: dict[str, float | None]
    distance: Annotated[float, Field(ge=0.0)] | None = None
    """How far the pictures are from what was wanted, in tolerances, see
    `agents.targets.distance`; None if nothing was."""
    prompt_version: int
    turn: int


class Design(Record):
    """The whole record of one design; `design.json` is this."""

    schema_version: Literal[1] = SCHEMA_VERSION
    brief: Brief
    turns: tuple[Turn, ...]
    facts: tuple[Citation, ...]
    corpora: tuple[Corpus, ...] = ()
    """Corpora of the user's own, beside the shipped facts."""
    facts_note: str = ""
    """What to know of how the concept was understood when they were found; empty if well."""
    prompts: tuple[ImagePrompt, ...]
    """Versions, oldest first."""
    pictures: tuple[Picture, ...]
    measurements: tuple[Measurement, ...]
    critiques: tuple[Critique, ...]
    best_version: Annotated[int, Field(ge=0)] | None = None
    """The version that is the result: nearest to its targets, or best judged where it has
    none; None in older records and before any critique, where it is the last one."""
    stop_reason: str
    timings_s: dict[str, float]
    """Wall time per phase; not part of what a seed repeats."""
    environment: dict[str, str]
