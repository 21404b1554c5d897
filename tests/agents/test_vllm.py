"""vLLM itself as the team's engine: `make test-vllm`, in an environment of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import converse, load_knowledge, load_team
from agents.endpoint import EndpointEngine
from agents.engines import Engines
from agents.fake import hashed_words
from agents.generation import Generation, Message, Sampling
from orbweave.models import ModelRef, export_model, resolve_adapter
from orbweave.processor import multiplies_bfloat16
from orbweave.records import Brief, ImagePrompt, Measurement, Picture
from ui.design import team_with

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1_500)]

ROOT = Path(__file__).parents[2]
VLLM = Path(os.environ.get("ORBWEAVE_VLLM", ROOT / ".venv-vllm" / "bin" / "vllm"))
READY_S = 900.0
GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0)
FRANCE = (Message("user", "What is the capital of France? Answer in one word."),)
CITIES = ["Paris", "London", "Rome", "a city I do not know"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A started `vllm serve` with the embedded base and the shipped adapter."""
    assert VLLM.is_file(), f"wanted {VLLM}; `make vllm` installs it"
    folder = tmp_path_factory.mktemp("vllm")
    base = export_model("base", folder / "base")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    adapter = resolve_adapter(ModelRef.parse("generalist"))
    dtype = "bfloat16" if multiplies_bfloat16() else "float32"
    command = [str(VLLM), "serve", str(base), "--served-model-name", "base"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", dtype]
    command += ["--enforce-eager", "--max-model-len", "4096", "--max-num-seqs", "4"]
    command += ["--enable-lora", "--max-lora-rank", "32", "--lora-modules", f"generalist={adapter}"]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    # 1 GB of keys and values; the threads are left where the system puts them. Reading a prompt
    # under an adapter takes vLLM long on a CPU, and it gives itself up after 300 s.
    cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    cpu |= {"VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "1200"}
    log = folder / "log"
    with log.open("w") as out:
        env = os.environ | quiet | cpu
        server = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)
        try:
            _wait(server, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(f"vLLM did not start:\n{log.read_text()[-3_000:]}")


@pytest.mark.parametrize("name", ["base", "generalist"])
async def test_options_weigh_what_they_weigh_in_process(address: str, name: str) -> None:
    far = await asyncio.to_thread(EndpointEngine.connect, address, name)
    found = await far.logprobs(FRANCE, CITIES)
    near = await asyncio.to_thread(Engines().open, name)
    expected = await near.logprobs(FRANCE, CITIES)
    await near.close()
    assert far.weighing == "exact"
    assert found == pytest.approx(expected, abs=0.6)  # summed in other orders
    assert max(found) == found[0]


async def test_a_begun_reply_goes_on_and_stops(address: str) -> None:
    engine = await asyncio.to_thread(EndpointEngine.connect, address, "base")
    request = Generation(FRANCE, GREEDY, 40, prefix="The capital of France is", stop=(".",))
    reply = await engine.generate(request)
    assert reply.text.startswith("The capital of France is Paris")
    assert "." not in reply.text
    assert engine.context_tokens == 4_096


async def test_the_team_designs_with_it(address: str) -> None:
    team = team_with(load_team(), f"{address}#generalist")
    engines: dict[str, EndpointEngine] = {}

    def engine_for(model: str) -> EndpointEngine:
        if model not in engines:
            url, _, name = model.partition("#")
            engines[model] = EndpointEngine.connect(url, name)
        return engines[model]

    async def render(
        prompt: ImagePrompt, version: int
    ) -> tuple[tuple[Picture, ...], tuple[Measurement, ...]]:
        measured = Measurement(
            picture="0.png",
            solid_fraction=0.5,
            direction_deg=None,
            anisotropy=0.1,
            spacing_px=None,
            contrast=0.2,
        )
        return (), (measured,)

    brief = Brief(concept="a filter membrane that combines spider silk and leaf veins")
    talk = await converse(
        brief,
        engine_for=engine_for,
        knowledge=load_knowledge(embed=hashed_words),
        structure_for=lambda prompt, seed: None,
        render=render,
        rounds=1,  # each takes it minutes on a CPU
        team=team,
    )
    assert {turn.role for turn in talk.turns} == {"expert", "engineer", "critic"}
    assert {turn.model for turn in talk.turns} == {f"{address}#generalist"}
    assert all(turn.text.strip() for turn in talk.turns)
    assert all(25 <= len(prompt.prompt.split()) <= 130 for prompt in talk.prompts)
    assert talk.critiques
    assert talk.stop_reason
    assert engines[f"{address}#generalist"].weighing == "exact"
