"""What a sweep of merges asks its models: benchmarks, through the scoring of `evaluate`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from merging.parent import Parent
from merging.sweep import Asked, Scores
from orbweave.weights import put_weights
from training.benchmark import Benchmark

__all__ = ["LoglikBench"]

_NOT_USED = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""Settings that say nothing of what a weight does."""


class LoglikBench:
    """Scores every option of every question by its likelihood, as `orbweave evaluate` does.

    One transformers model is loaded; the weights of all others are put into it.
    """

    def __init__(self, benchmarks: Sequence[Benchmark], batch: int = 16) -> None:
        self.benchmarks = tuple(benchmarks)
        self.batch = batch
        self.questions = tuple(
            Asked(f"{benchmark.name}/{q.id}", f"{benchmark.name}/{q.domain}", q.answer)
            for benchmark in benchmarks
            for q in benchmark.questions
        )
        asked = "\n".join(
            f"{benchmark.name} {question.model_dump_json()}"
            for benchmark in benchmarks
            for question in benchmark.questions
        )
        self.digest = hashlib.sha256(f"loglik\n{asked}".encode()).hexdigest()
        self._model: Any = None
        self._settings: dict[str, Any] = {}
        self._tokenizers: dict[Path, Any] = {}
        self._tokenizer: Any = None

    def sample(self, n: int) -> LoglikBench:
        """Return a bench of at most n of the questions, spread evenly, to time them."""
        step = max(1, -(-len(self.questions) // n))
        starts = accumulate((len(b.questions) for b in self.benchmarks), initial=0)
        places = zip(starts, self.benchmarks, strict=False)
        fewer = [Benchmark(b.name, b.questions[-start % step :: step]) for start, b in places]
        return LoglikBench([b for b in fewer if b.questions], self.batch)

    def load(self, tensors: Mapping[str, Any], like: Parent) -> None:
        """Put weights into the model; it is loaded anew where the configuration differs.

        Raises:
            ModelError: they are not the weights of such a model.
        """
        from training.scoring import load_model

        settings = {key: like.config[key] for key in like.config.keys() - _NOT_USED}
        if self._model is None or settings != self._settings:
            self._model, self._tokenizers[like.folder] = load_model(like.folder)
            self._settings = settings
        put_weights(self._model, tensors, like.name)
        self._tokenizer = self._tokenizer_in(like.tokenizer_folder or like.folder)

    def ask(self, on_progress: Callable[[int], None]) -> Scores:
        """Return the score of every option, in nats per character."""
        from training.scoring import loglik_scores

        found: dict[str, Sequence[float]] = {}
        starts = accumulate((len(b.questions) for b in self.benchmarks), initial=0)
        for benchmark, before in zip(self.benchmarks, starts, strict=False):
            rows = loglik_scores(
                self._model,
                self._tokenizer,
                benchmark.questions,
                self.batch,
                lambda done, _, before=before: on_progress(before + done),  # type: ignore[misc]
            )
            for question, row in zip(benchmark.questions, rows, strict=True):
                found[f"{benchmark.name}/{question.id}"] = [round(value, 6) for value in row]
        return found

    def _tokenizer_in(self, folder: Path) -> Any:
        """Return a folder's tokenizer, read once."""
        from training.scoring import load_tokenizer

        if folder not in self._tokenizers:
            self._tokenizers[folder] = load_tokenizer(folder)
        return self._tokenizers[folder]
