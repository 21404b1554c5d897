"""What a row of a batch costs besides the models, as the batch grows; a part of `batch.py`.

Growth: rows of a tiny random language model, one expert and 64-pixel pictures of two steps; with
time, peak memory and the store's size per row. A batch of a few rows has nobody to share the
waiting with: so beside the time of a row stands the processor's, and how long a row took and what
memory the process held early and late in the same batch. Peaks alone would not tell memory that
grows from memory that was needed once.

Planning: a table of 100,000 rows read, checked, put into the store and listed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WARM = "a bridge of bamboo"
"""Made before the clock starts."""
PLANNED = 100_000
GROWN = ("seconds", "processor_s")
STATM = Path("/proc/self/statm")
"""What Linux tells of a process's memory, in pages; the second number is what lies in it now."""


def rows(concepts: Sequence[str], **options: object) -> list[Any]:
    """Return the rows of a batch from words alone, each with a seed of its own."""
    from ui.matrix import expand
    from ui.table import Row

    given = {name: [str(value)] for name, value in options.items()}
    table = [
        Row(n, {"concept": concept, "seed": str(1000 * n)})
        for n, concept in enumerate(concepts, start=2)
    ]
    made, faults = expand(table, {"structure": ["none"], **given}, "product")
    assert not faults, faults
    return made


def grow(folder: Path, n: int, at_once: int | None) -> dict[str, Any]:
    """Make a batch of `n` tiny rows in a fresh folder; return its figures."""
    from agents.embedding import MiniLM
    from orbweave.jobs import open_jobs
    from ui.batch import plan_batch, work_on
    from ui.batch_report import write_report
    from ui.crew import usual_at_once
    from ui.design import workshop
    from ui.environment import peak_memory_mb
    from ui.maker import Maker

    options = {"size": 64, "steps": 2, "images": 1, "domains": "leaf"}
    options |= {"model": tiny_model(folder), "team": terse_team(folder)}
    at_once = at_once or usual_at_once()
    embed = MiniLM()
    maker, jobs = Maker(workshop(lambda text: None, embed)), open_jobs()
    warm = plan_batch(jobs, folder / "warm", rows([WARM], **options), {})
    work_on(jobs, warm, maker)
    write_report(jobs, warm, folder / "warm", zipped=False)
    empty, loaded_mb = store_bytes(jobs), peak_memory_mb()
    busy = time.process_time()
    concepts = [f"web number {i} of silk" for i in range(n)]
    out, held = folder / "out", Held()
    began = time.perf_counter()
    batch = plan_batch(jobs, out, rows(concepts, **options), {}, at_once=at_once)
    tally = work_on(jobs, batch, maker, at_once=at_once, on_progress=held)
    made_s = time.perf_counter() - began
    made_mb = peak_memory_mb()
    write_report(jobs, batch, out, zipped=False)
    assert set(tally) <= {"done", "failed"}, tally
    return {
        "rows": n,
        "failed": tally.get("failed", 0),
        "at_once": at_once,
        "seconds": time.perf_counter() - began,
        "making_s": made_s,
        "processor_s": time.process_time() - busy,
        "tenths_s": tenths([job.finished for job in jobs.each(batch)]),
        "loaded_mb": loaded_mb,
        "made_mb": made_mb,
        "peak_mb": peak_memory_mb(),
        "tenths_mb": held.tenths_mb,
        "store_bytes": store_bytes(jobs) - empty,
    }


def tenths(finished: Sequence[float]) -> list[float]:
    """Return the seconds of a row in the second and in the ninth tenth of a batch.

    The first and the last hold the beginning and the end, when fewer rows are under way.
    """
    ends, each = sorted(finished), len(finished) // 10
    return [(ends[n * each] - ends[(n - 1) * each]) / each for n in (2, 9)] if each > 1 else []


class Held:
    """Notes the memory held as each tenth of a batch ends; what `work_on` tells of progress."""

    def __init__(self) -> None:
        self.tenths_mb: list[float] = []
        """Ten numbers in the end, in MB; none where the system is not Linux."""

    def __call__(self, ended: int, n_rows: int, _: float | None) -> None:
        """Note what is held now for each tenth that has ended since the last call."""
        over = 10 * ended // n_rows - len(self.tenths_mb)
        if over > 0 and STATM.exists():
            self.tenths_mb += [resident_mb()] * over


def resident_mb() -> float:
    """Return what of this process lies in memory now, in MB."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def tiny_model(folder: Path) -> Path:
    """Write a random language model of two layers with the embedded model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from merging.build import resolve_model

    target = folder / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("base", lambda text: None))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8192,
        tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def terse_team(folder: Path) -> Path:
    """Write the default team with one fact an expert, one try and eight tokens a reply."""
    from agents.roles import load_team

    team = load_team().model_dump(mode="json", exclude_none=True)
    team["facts_each"] = 1
    for form in team.values():
        if isinstance(form, dict) and "max_new_tokens" in form:
            form |= {"max_new_tokens": 8, "tries": 1}
    target = (folder / "terse.yaml").absolute()
    target.write_text(json.dumps(team), "utf-8")  # JSON is YAML
    return target


def store_bytes(jobs: Any) -> int:
    """Return the size of the store's file once its journal is folded in."""
    jobs.store.close()
    return jobs.store.file.stat().st_size


def growth_table(told: Sequence[dict[str, Any]]) -> str:
    """Return the figures of growth as Markdown."""
    lines = [
        "| rows | s a row | of it making | processor's | MB before | after | with the report "
        "| store, kB a row |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {run['rows']:,} | {run['seconds'] / run['rows']:.3f} "
        f"| {run['making_s'] / run['rows']:.3f} | {run['processor_s'] / run['rows']:.3f} "
        f"| {run['loaded_mb']:.0f} | {run['made_mb']:.0f} | {run['peak_mb']:.0f} "
        f"| {run['store_bytes'] / run['rows'] / 1000:.1f} |"
        for run in told
    ]
    failed = ", ".join(f"{run['failed']} of {run['rows']:,}" for run in told if run["failed"])
    if failed:  # a model of random numbers may say what makes no prompt
        lines.append(f"\nFailed rows: {failed}.")
    first = next((run for run in told if run["rows"] >= 10), told[0])
    last = told[-1]
    wall, busy = (last[s] / last["rows"] / (first[s] / first["rows"]) for s in GROWN)
    lines.append(
        f"\nA row of {last['rows']:,} costs {wall:.2f} times one of {first['rows']:,}, "
        f"{busy:.2f} times of the processor's time."
    )
    if last["tenths_s"]:
        early, late = last["tenths_s"]
        lines.append(
            f"Within the largest batch a row took {early:.3f} s in the second tenth and "
            f"{late:.3f} s in the ninth: {late / early:.2f} times."
        )
    if last["tenths_mb"]:
        early, late = last["tenths_mb"][1], last["tenths_mb"][8]
        between = 0.7 * last["rows"]
        lines.append(
            f"It held {early:,.0f} MB after the second tenth and {late:,.0f} MB after the ninth: "
            f"{1000 * (late - early) / between:.0f} kB a row."
        )
    return "\n".join(lines)


def plan(folder: Path) -> dict[str, Any]:
    """Plan and list a batch that nobody makes; return the seconds of each step."""
    from orbweave.jobs import open_jobs
    from ui.batch import plan_batch
    from ui.environment import peak_memory_mb
    from ui.matrix import COLUMNS, expand
    from ui.table import read_table

    table = folder / "concepts.csv"
    lines = (f"web number {n} of silk and leaf,{n}\n" for n in range(PLANNED))
    table.write_text("concept,seed\n" + "".join(lines), "utf-8")
    jobs, steps = open_jobs(), [time.perf_counter()]

    def step() -> float:
        steps.append(time.perf_counter())
        return steps[-1] - steps[-2]

    read, faults = read_table(table, COLUMNS)
    asked, more = expand(read, {}, "product")
    assert not faults + more, faults + more
    told: dict[str, Any] = {"rows": len(asked), "checked_s": step()}
    batch = plan_batch(jobs, folder / "out", asked, {})
    told["planned_s"] = step()
    assert sum(1 for _ in jobs.each(batch)) == PLANNED
    told["listed_s"] = step()
    return told | {"peak_mb": peak_memory_mb(), "store_bytes": store_bytes(jobs)}


def planning_line(told: dict[str, Any]) -> str:
    """Return the figures of planning in a sentence."""
    return (
        f"\n{told['rows']:,} rows: read and checked in {told['checked_s']:.1f} s, planned in "
        f"{told['planned_s']:.1f} s, listed in {told['listed_s']:.1f} s; "
        f"{told['peak_mb']:.0f} MB of memory, {told['store_bytes'] / 1e6:.0f} MB of store."
    )
