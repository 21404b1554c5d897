"""Benchmarks as tasks of lm-evaluation-harness, for models and engines that only it drives.

Each benchmark becomes `orbweave_<name>.yaml` and `<name>.jsonl`. With `--apply_chat_template`
the harness asks as `training.scoring.loglik_scores` does: the bare question is the user's turn,
each option the reply, and its `acc_norm` divides by characters.

Source: https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/task_guide.md,
tried with 0.4.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from orbweave.errors import UsageError
from orbweave.files import build_folder
from training.benchmark import Benchmark

__all__ = ["TAG", "export_tasks", "is_export", "task_of"]

TAG = "orbweave"
"""Names all tasks of an export at once."""
_README = """\
# Benchmarks for lm-evaluation-harness

    lm_eval --model hf --model_args pretrained=FOLDER,dtype=bfloat16 \\
      --include_path {folder} --tasks {tag} --apply_chat_template

Read `acc_norm`: the option of the highest log-probability per character.
The YAML files name their data by its full path; export again instead of moving the folder.
"""


def task_of(benchmark: Benchmark, data: Path) -> dict[str, Any]:
    """Return the task's configuration; `data` is the full path of its JSONL file."""
    return {
        "task": f"{TAG}_{benchmark.name.replace('-', '_')}",
        "tag": TAG,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        # Names of columns, not templates: a brace in a question stays a brace.
        "doc_to_text": "question",
        "doc_to_choice": "options",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in ("acc", "acc_norm")
        ],
        "metadata": {"version": 1.0},
    }


def export_tasks(benchmarks: Sequence[Benchmark], target: Path, *, force: bool = False) -> Path:
    """Write the tasks into the folder `target`, whole or not at all, and return it.

    Raises:
        UsageError: two benchmarks have one name.
        OutputError: the target exists and `force` is off, or cannot be written.
    """
    names = [benchmark.name for benchmark in benchmarks]
    if len(set(names)) < len(names):
        raise UsageError(f"wanted benchmarks of different names, got {', '.join(names)}")
    with build_folder(target, force=force) as building:
        for benchmark in benchmarks:
            file = f"{benchmark.name}.jsonl"
            rows = "".join(question.model_dump_json() + "\n" for question in benchmark.questions)
            (building / file).write_text(rows, encoding="utf-8")
            task = task_of(benchmark, target.resolve() / file)
            text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
            (building / f"{task['task']}.yaml").write_text(text, encoding="utf-8")
        readme = _README.format(folder=target.resolve(), tag=TAG)
        (building / "README.md").write_text(readme, encoding="utf-8")
    return target


def is_export(folder: Path) -> bool:
    """Whether a folder is an earlier export, and may be replaced."""
    return any(folder.glob(f"{TAG}_*.yaml"))
