from __future__ import annotations

import pytest

from orbweave.errors import UsageError
from ui.matrix import COLUMNS, expand, parse_seeds
from ui.table import Row


def _row(number: int = 2, **cells: str) -> Row:
    return Row(number, {"concept": "silk", **cells})


def _faults(*rows: Row, combine: str = "product", **options: list[str]) -> list[str]:
    made, faults = expand(rows, options, combine)
    return [str(fault) for fault in faults]


def test_product_makes_every_combination_in_the_order_of_the_table():
    rows = [_row(2), _row(3, concept="leaf")]
    made, faults = expand(rows, {"seed": ["1", "2"], "model": ["base", "generalist"]}, "product")
    assert faults == []
    assert [(row.brief.concept, row.brief.seed, row.model) for row in made] == [
        (concept, seed, model)
        for concept in ("silk", "leaf")
        for seed in (1, 2)
        for model in ("base", "generalist")
    ]


def test_zip_gives_each_row_its_value_and_a_single_one_to_all():
    rows = [_row(2), _row(3, concept="leaf")]
    made, _ = expand(rows, {"seed": ["5", "6"], "steps": ["8"]}, "zip")
    assert [(row.brief.seed, row.render.steps) for row in made] == [(5, 8), (6, 8)]


def test_zip_with_another_number_of_values_is_told():
    assert _faults(_row(2), _row(3), combine="zip", seed=["1", "2", "3"]) == [
        "column seed: wanted 1 value or one for each of 2 rows, got 3"
    ]


def test_a_cell_comes_before_an_option_and_an_empty_one_does_not():
    made, _ = expand([_row(2, steps="4"), _row(3)], {"steps": ["8", "9"]}, "product")
    assert [(row.number, row.render.steps) for row in made] == [(2, 4), (3, 8), (3, 9)]


def test_every_column_reaches_its_place(tmp_path):
    (tmp_path / "s.yaml").write_text("motifs: [{family: orb_web}]")
    cells = {
        "concept": "silk\nand  leaf",
        "name": " ../first ",
        "scale": "urban",
        "domains": "leaf, collagen",
        "seed": "7",
        "images": "3",
        "rounds": "2",
        "team": "default",
        "model": "base",
        "structure": str(tmp_path / "s.yaml"),
        "image_model": "loom",
        "strength": "0.5",
        "scheduler": "DDIM",
        "steps": "24.0",
        "guidance": "2.5",
        "size": "128x64",
        "solid_fraction": "0.4",
        "direction_deg": "45",
        "spacing_px": "20",
    }
    assert set(cells) == set(COLUMNS)
    (row,), faults = expand([Row(2, cells)], {}, "product")
    assert faults == []
    settings = row.settings()
    changed = {"concept": "silk and leaf", "domains": "leaf,collagen"}
    for name in set(COLUMNS) - {"name"}:
        wanted = changed.get(name, cells[name])
        assert settings[name] == (wanted if isinstance(settings[name], str) else float(wanted))
    assert row.name == "../first"
    assert "/" not in row.folder and ".." not in row.folder


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("concept", "\x00", "control character"),
        ("concept", "...", "wanted a concept in words"),
        ("name", "x" * 201, "up to 200 printable characters"),
        ("scale", "nano", "got 'nano'"),
        ("domains", "leaf,silk", "got 'silk'"),
        ("seed", "-1", "got '-1'"),
        ("seed", "one", "got 'one'"),
        ("seed", "4294967295", "the last would pass"),
        ("images", "0", "got '0'"),
        ("rounds", "11", "got '11'"),
        ("team", "../../secret", "wanted a team, found no"),
        ("model", "bse", "did you mean base"),
        ("image_model", "http://x", "wanted a model server"),
        ("structure", "nowhere.yaml", "wanted --structure auto, none or a readable file"),
        ("strength", "0", "got '0'"),
        ("strength", "nan", "got 'nan'"),
        ("scheduler", "Euler b", "wanted a sampler, got 'Euler b'"),
        ("steps", "501", "got '501'"),
        ("guidance", "2,5", "got '2,5'"),
        ("size", "250", "multiple of 8"),
        ("size", "big", "256 or 512x384"),
        ("solid_fraction", "1.5", "got '1.5'"),
        ("direction_deg", "180", "got '180'"),
        ("spacing_px", "inf", "wanted a number, got 'inf'"),
    ],
)
def test_a_value_out_of_range_is_told_by_row_and_column(column, value, message):
    (fault,) = _faults(_row(9, **{column: value}))
    assert fault.startswith(f"row 9, column {column}: ")
    assert message in fault


def test_what_no_cell_says_of_the_pictures_follows_the_models_preset():
    cells = [{"image_model": "sdxl"}, {"image_model": "leaf-flux", "steps": "4"}, {}]
    table = [Row(n, {"concept": "silk", **given}) for n, given in enumerate(cells)]
    rows, faults = expand(table, {}, "product")
    assert faults == []
    drawn = [(row.render.model, row.settings()["size"], row.render.steps) for row in rows]
    assert drawn == [
        ("sdxl", "1024x1024", 30),
        ("leaf-flux", "1024x1024", 4),
        ("loom", "256x256", 24),
    ]
    assert [row.render.guidance for row in rows] == [5.0, 3.5, 3.0]


def test_all_faults_of_all_rows_come_in_one_list():
    faults = _faults(
        _row(2, steps="0", size="9", scale="nano"),
        Row(3, {"seed": "1"}),
        _row(4, concept="leaf"),
        model=["base", "generalist"],
    )
    places = [fault.split(":")[0] for fault in faults]
    assert places == [
        "row 2, column scale",
        "row 2, column steps",
        "row 2, column size",
        "row 3, column concept",
    ]


def test_one_wrong_cell_hides_no_other():
    cells = {
        "name": "n" * 201, "concept": "a\x00", "image_model": "nosuch", "scheduler": "Foo",
        "steps": "0", "size": "big", "strength": "2", "team": "nope", "model": "slerp(",
        "structure": "missing.yaml", "images": "0", "rounds": "11", "spacing_px": "inf",
        "solid_fraction": "2",
    }  # fmt: skip
    told = [
        fault.split(":")[0].removeprefix("row 2, column ") for fault in _faults(_row(2, **cells))
    ]
    assert sorted(told) == sorted(cells)


def test_a_number_of_thousands_of_digits_is_told():
    digits = "9" * 5000
    assert all("999…" in fault for fault in _faults(_row(2, seed=digits, images=digits)))
    with pytest.raises(UsageError, match="wanted --seed as"):
        parse_seeds([digits])


def test_a_row_that_comes_twice_is_told():
    assert _faults(_row(2), _row(3, concept=" silk "), _row(4, seed="0")) == [
        "row 3: asks for the same design as row 2",
        "row 4: asks for the same design as row 2",
    ]


def test_a_label_makes_no_other_design():
    assert _faults(_row(2, name="a"), _row(3, name="b")) == [
        "row 3: asks for the same design as row 2"
    ]


def test_too_many_combinations_are_refused_before_they_are_made():
    seeds = [str(n) for n in range(1000)]
    assert _faults(_row(2), _row(3), seed=seeds, steps=seeds) == [
        "the file: wanted at most 1,000,000 rows of the batch in all"
    ]


def test_the_folder_follows_from_the_content_and_from_nothing_else(tmp_path):
    def folder(**cells: str) -> str:
        (row,), faults = expand([_row(**cells)], {}, "product")
        assert faults == []
        return row.folder

    plain = folder()
    assert plain == folder(steps="24", scale="microstructure")  # the defaults, spelt out
    assert plain.startswith("silk-0-")
    others = {folder(seed="1"), folder(steps="23"), folder(model="base"), folder(images="3")}
    assert len(others | {plain}) == 5
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "s.yaml").write_text("motifs: [{family: orb_web}]")
    first = folder(structure=str(tmp_path / "a" / "s.yaml"))
    (tmp_path / "a" / "s.yaml").write_text("motifs: [{family: silk_bundle}]")
    assert folder(structure=str(tmp_path / "a" / "s.yaml")) != first


@pytest.mark.parametrize(
    ("texts", "seeds"),
    [(["7"], ["7"]), (["1,2", "5"], ["1", "2", "5"]), (["0-3"], ["0", "1", "2", "3"]), ([], [])],
)
def test_seeds_are_numbers_lists_and_ranges(texts, seeds):
    assert parse_seeds(texts) == seeds


@pytest.mark.parametrize("text", ["", "x", "3-1", "-1", "1-", "0-9999999", "1.5"])
def test_what_is_no_seed_is_refused(text):
    with pytest.raises(UsageError, match="wanted --seed as"):
        parse_seeds([text])
