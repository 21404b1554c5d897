"""Who has computed leaves no threads behind that let the others' sleep."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from orbweave.thread_team import dismissing_team

COUNTING = """
import os, time, torch
def n_threads():
    found = [0]
    while len(found) < 10 or len(set(found[-10:])) > 1:  # until those that end have ended
        time.sleep(0.1)
        found.append(len(os.listdir("/proc/self/task")))
    return found[-1]
def multiply():
    torch.randn(600, 600) @ torch.randn(600, 600)
"""
BARE = """
from orbweave.thread_team import dismissing_team
first = n_threads()
multiply()
kept = n_threads()
with dismissing_team():
    multiply()
print(kept - first, n_threads() - first)
"""
EMBEDDING = """
from agents.embedding import MiniLM
embed = MiniLM()
embed(["a web of spider silk that carries dew"] * 4)
before = n_threads()
multiply()
print(n_threads() - before)
"""
ENGINE = """
import asyncio
from agents.engine import TransformersEngine
from agents.generation import Generation, Message
from orbweave.models import resolve
engine = TransformersEngine(resolve("base"), "base", dtype="float32")
asked = Generation(messages=(Message("user", "hello there"),), max_new_tokens=3, seed=1)
asyncio.run(engine.generate(asked))
before = n_threads()
multiply()
with_product = n_threads()
asyncio.run(engine.close())
print(with_product - before, with_product - n_threads())
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")


def said(code: str) -> str:
    """What a new process prints, in which torch has two threads."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTING + code],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@on_linux
def test_a_team_is_kept_until_it_is_dismissed() -> None:
    assert said(BARE).split() == ["1", "0"]


def test_what_is_raised_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), dismissing_team():
        _ = 1 / 0


@pytest.mark.slow
@on_linux
def test_an_embedding_leaves_no_team() -> None:
    """Else the product behind it would find its threads there and need no new ones."""
    assert int(said(EMBEDDING)) >= 1


@pytest.mark.slow
@on_linux
def test_neither_loading_a_model_nor_its_reply_leaves_a_team() -> None:
    of_a_product, of_the_engine = said(ENGINE).split()
    assert (of_a_product, of_the_engine) == ("1", "1")
