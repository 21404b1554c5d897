"""Who may import whom, read off the syntax trees; and what a help page may cost."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT: dict[str, set[str]] = {
    "orbweave": set(),
    "training": {"orbweave"},
    "merging": {"orbweave"},
    "agents": {"orbweave", "merging"},
    "imagegen": {"orbweave"},
    "ui": {"orbweave", "training", "merging", "agents", "imagegen"},
}

# Each outside giant and the files that may touch it. A pattern stands for a package that is
# still growing.
ADAPTERS: dict[str, tuple[str, ...]] = {
    "autogen_agentchat": ("agents/team.py",),
    "autogen_core": ("agents/client.py", "agents/team.py"),
    "autogen_ext": (),
    "openai": ("agents/endpoint_client.py", "training/teacher.py"),
    "sentence_transformers": ("agents/embedding.py",),
    "transformers": (
        "agents/embedding.py",
        "agents/engine.py",
        "imagegen/loading.py",
        "imagegen/text_encoder.py",
        "training/*.py",
    ),
    "diffusers": (
        "imagegen/adapter_training.py",
        "imagegen/autoencoder.py",
        "imagegen/classifier_training.py",
        "imagegen/denoiser.py",
        "imagegen/drawing.py",
        "imagegen/latents.py",
        "imagegen/loading.py",
        "imagegen/sketch.py",
    ),
    "torch": (
        "agents/adapters.py",
        "agents/decoder.py",
        "agents/engine.py",
        "agents/jobs.py",
        "agents/products.py",
        "agents/sampler.py",
        "agents/worker.py",
        "imagegen/adapter_training.py",
        "imagegen/autoencoder.py",
        "imagegen/carried.py",
        "imagegen/checkpoint.py",
        "imagegen/classifier.py",
        "imagegen/classifier_training.py",
        "imagegen/convert.py",
        "imagegen/denoiser.py",
        "imagegen/device.py",
        "imagegen/distortion.py",
        "imagegen/drawing.py",
        "imagegen/export.py",
        "imagegen/inpainting.py",
        "imagegen/latent_space.py",
        "imagegen/latents.py",
        "imagegen/loading.py",
        "imagegen/loop.py",
        "imagegen/network_file.py",
        "imagegen/pool.py",
        "imagegen/prompt_embedding.py",
        "imagegen/reader.py",
        "imagegen/reader_training.py",
        "imagegen/samples.py",
        "imagegen/sketch.py",
        "imagegen/sketch_training.py",
        "imagegen/text_encoder.py",
        "imagegen/tiling.py",
        "merging/kernel.py",
        "merging/stream.py",
        "merging/tensors.py",
        "orbweave/embedded.py",
        "orbweave/processor.py",
        "orbweave/subnormals.py",
        "orbweave/thread_team.py",
        "training/*.py",
    ),
    "fpdf": ("ui/report_pdf.py",),
    "gguf": ("orbweave/embedded.py",),
    "huggingface_hub": ("orbweave/models.py",),
    "trl": ("training/*.py",),
    "peft": ("imagegen/adapter_training.py", "training/*.py"),
    "mergekit": ("merging/mergekit_adapter.py",),
    "gradio": ("ui/studio/*.py",),
    "typer": ("ui/cli.py", "ui/commands/*.py"),
    "pypdfium2": ("training/sources.py",),
    "trafilatura": ("training/sources.py",),
    "bibtexparser": ("training/sources.py",),
    "blake3": ("merging/digests.py",),
    "matplotlib": (
        "merging/geometry_picture.py",
        "merging/synergy_pattern_views.py",
        "merging/synergy_views.py",
        "training/chart.py",
        "ui/study_figures.py",
        "ui/study_report.py",
        "ui/sweep_report.py",
    ),
    "rich": ("ui/terminal.py",),
    "jinja2": ("agents/engine.py", "ui/template.py"),
    "sqlalchemy": (
        "orbweave/jobs.py",
        "orbweave/leases.py",
        "orbweave/migrations/versions/*.py",
        "orbweave/store.py",
        "orbweave/tables.py",
    ),
    "alembic": (
        "orbweave/migrations/*.py",
        "orbweave/migrations/versions/*.py",
        "orbweave/store.py",
    ),
    "pyarrow": ("ui/results.py",),
    "json_repair": ("agents/json_reply.py",),
    "pint": ("agents/quantities.py",),
    "ray": ("ui/cluster.py",),
    "skfem": ("imagegen/homogenise.py",),
    "skimage": ("imagegen/phases.py", "imagegen/skeleton.py"),
    "trimesh": ("imagegen/relief.py",),
}

HEAVY = ("torch", "transformers", "diffusers", "autogen_core", "gradio", "sentence_transformers")


def _sources() -> list[Path]:
    return sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (full name, line) of everything a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.module, node.lineno


def test_packages_import_only_what_the_design_allows():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in _sources()
        for name, line in _imports(path)
        for package in [path.relative_to(ROOT).parts[0]]
        if name.split(".")[0] in MAY_IMPORT.keys() - MAY_IMPORT[package] - {package}
    ]
    assert wrong == []


def test_each_giant_is_touched_only_by_its_adapters():
    wrong = [
        f"{place}:{line} imports {name}"
        for path in _sources()
        for place in [path.relative_to(ROOT).as_posix()]
        for name, line in _imports(path)
        for giant in [name.split(".")[0]]
        if giant in ADAPTERS and not any(fnmatch(place, known) for known in ADAPTERS[giant])
    ]
    assert wrong == []


def test_every_named_adapter_still_touches_its_giant():
    """So that the table above cannot outlive the code; patterns may run ahead of it."""
    stale = [
        f"{place} no longer imports {giant}"
        for giant, places in ADAPTERS.items()
        for place in places
        if "*" not in place and (ROOT / place).exists()
        if giant not in {name.split(".")[0] for name, _ in _imports(ROOT / place)}
    ]
    assert stale == []


def test_no_file_is_called_utils():
    assert [path for path in _sources() if path.stem in {"utils", "helpers", "common"}] == []


def test_the_sources_were_found():
    assert {path.relative_to(ROOT).parts[0] for path in _sources()} >= {
        "orbweave",
        "agents",
        "imagegen",
        "ui",
    }


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_importing_a_package_loads_no_giant(package):
    _run_python(f"import sys, {package}; {_complain_about_heavy()}")


def test_help_loads_no_giant_and_takes_under_a_second_of_processor_time():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run_python(f"import sys; from ui.cli import run; run(['--help']); {_complain_about_heavy()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent_s < 1.0


def _complain_about_heavy() -> str:
    return f"found = sys.modules.keys() & set({HEAVY}); sys.exit(str(found) if found else 0)"


def _run_python(code: str) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
