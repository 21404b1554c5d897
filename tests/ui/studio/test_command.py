"""`orbweave ui` before it serves anything."""

from __future__ import annotations

import json

from ui.cli import run


def test_a_dry_run_names_the_address_and_opens_nothing(tmp_path, capsys):
    data = tmp_path / "data"
    assert run(["ui", "--data", str(data), "--port", "7999", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "address": "http://127.0.0.1:7999",
        "data": str(data),
        "workers": 1,
    }
    assert not data.exists()


def test_the_switch_for_mcp_says_where_it_is_answered(tmp_path, capsys):
    assert run(["ui", "--data", str(tmp_path), "--mcp", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["mcp"] == "http://127.0.0.1:7860/gradio_api/mcp/"


def test_an_open_door_is_mentioned(capsys):
    assert run(["ui", "--host", "0.0.0.0", "--dry-run"]) == 0
    assert "everybody who reaches http://0.0.0.0:7860 may design here" in capsys.readouterr().err


def test_a_password_without_a_name_is_used_wrongly(capsys):
    assert run(["ui", "--auth", "secret", "--dry-run"]) == 2
    assert "wanted --auth as NAME:PASSWORD" in capsys.readouterr().err


def test_a_data_folder_that_cannot_be_one_is_told(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert run(["ui", "--data", str(file / "data"), "--port", "7999"]) == 1
    assert "choose another --data" in capsys.readouterr().err
