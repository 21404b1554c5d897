from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pylatexenc.latexwalker import LatexWalker

from agents.json_reply import JsonReply
from agents.latex import _table, escape, latex
from agents.transcript import SpokenTurn, Transcript, markdown

HOSTILE = "50 % & 3 $ of #1_a {b} ~ ^ \\input{x} <b> | \" ` -- ,, '' σ² 中 🧬 é [x] \\\\[1em] %"


def said(model: str, text: str) -> Transcript:
    turn = SpokenTurn(
        model=model,
        seed=3,
        index=0,
        turn="a_b",
        system="Be brief.",
        asked=text,
        reply=text,
        outcome="cut off",
        max_new_tokens=1024,
        json_reply=JsonReply(status="repaired", value={"a": text}, problem="text around the JSON"),
    )
    return Transcript("x_y%", model, 3, (turn,), {"a_b": ["../images/a-1.png"]})


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_escaped_text_is_ascii_and_holds_nothing_active(text):
    escaped = escape(text)
    assert escaped.isascii()
    bare = re.sub(r"\\[A-Za-z]+(\{\})?|\\[^A-Za-z]", "", escaped)
    assert not set(bare) & set("$&#_^\\")
    assert "%" not in bare.replace("%\n", "")
    assert bare.count("{") == bare.count("}")


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_escaped_text_parses_with_groups_closed(text):
    walker = LatexWalker(escape(text), tolerant_parsing=False)
    nodes, _, length = walker.get_latex_nodes()
    assert length == len(escape(text))
    assert nodes is not None


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_characters_come_back(text):
    back = escape(text).replace("%\n", "")
    for character, command in [
        ("\\", r"\textbackslash{}"), ("^", r"\textasciicircum{}"), ("~", r"\textasciitilde{}"),
        ("<", r"\textless{}"), (">", r"\textgreater{}"), ("|", r"\textbar{}"),
        ('"', r"\textquotedbl{}"), ("`", r"\textasciigrave{}"),
    ]:  # fmt: skip
        back = back.replace(command, f"\0{ord(character)}\0")
    back = re.sub(
        r"(?<=[-,'])\{\}", "", re.sub(r"\\([{}$&#%_])", lambda m: f"\0{ord(m[1])}\0", back)
    )
    back = re.sub(r"\0(\d+)\0", lambda m: chr(int(m[1])), back)
    assert " ".join(back.split()) == " ".join(text.split())


def test_ligatures_of_the_fonts_are_kept_apart():
    assert escape("a -- b ,, ''") == "a -{}- b ,{}, '{}'"


def test_characters_without_a_command_are_shown_by_their_number():
    assert escape("中\x07\u200d") == r"\unseen{4E2D}\unseen{0007}\unseen{200D}"
    assert escape("é") == escape("e\u0301") == r"{\'e}"
    assert escape("\U0001d70e") == escape("σ") != ""


def test_commands_are_those_tried_with_pdflatex():
    """Changes with pylatexenc: run the next test where there is a pdflatex, then renew this."""
    table = json.dumps(sorted(_table().items()))
    assert (len(_table()), hashlib.sha256(table.encode()).hexdigest()[:12]) == (
        1090,
        "aba7f6f5f40e",
    )


def test_a_document_is_ascii_balanced_and_shows_everything():
    text = latex(said("org/na_me#1", HOSTILE))
    assert text.isascii()
    walker = LatexWalker(text, tolerant_parsing=False)
    assert walker.get_latex_nodes()[2] == len(text)
    assert r"org/na\_me\#1" in text
    assert "cut off at 1,024 tokens; JSON repaired" in text
    assert r"{../images/a-1.png}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
@pytest.mark.slow
def test_pdflatex_compiles_every_character_it_is_given(tmp_path):
    every = "\n".join(f"a{chr(c)}b {chr(c)}{chr(c)}" for c in [*range(32, 0x500), *_table()])
    text = latex(said("中_%/\\m", f"{HOSTILE}\n{every}\n{'x' * 5000}\n{chr(92) * 9000}"))
    (tmp_path / "t.tex").write_text(re.sub(r"\\includegraphics.*", "", text))
    done = subprocess.run(
        ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
    )
    log = (tmp_path / "t.log").read_text("latin-1")
    assert done.returncode == 0, log[-1500:]
    assert "Missing character" not in log


def test_markdown_quotes_what_models_say():
    text = markdown(said("a`b", "# no heading\n<script>alert(1)</script>\n```"))
    assert "> # no heading" in text
    assert "> &lt;script>alert(1)" in text
    assert "Model `` a`b ``, seed 3" in text
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# x_y%", "## 1. a_b"]
    assert "![a_b](../images/a-1.png)" in text
