"""`python -m bench.proof`: how often a proof is right, on real texts, with real models and their variants.

Debian's applications are embedded once by each model; each trial draws 64 of them as stored rows and asks for the
verdict, as promotion does. No database is needed.
"""

import argparse
import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.db.engine import create_engine
from app.demo.data import App, load_apps
from app.domain.promoting.proof import Proof, judge
from app.domain.promoting.proof_rows import Drawn
from app.domain.runtime import Runtime
from app.inference.base import Task, Vectors
from app.inference.registry import Inference
from app.retrieval.catalog import VectorConfig
from app.settings import Settings

MINILM, E5, WORDS = "minilm_l6_v2", "multilingual_e5_small", "wordllama_256"
MATCH, REFUSED = "match", "mismatch"


@dataclass(frozen=True, slots=True)
class Stored:
    """How stored vectors were made: a service and a task, perhaps of an altered text, cut to their first dimensions."""

    service: str
    task: Task = "document"
    prefix: str = ""
    lower: bool = False
    cut: int | None = None
    scaled: bool = False
    text: str = "{text}"


@dataclass(frozen=True, slots=True)
class Case:
    """Stored vectors, the service that is asked about, and the right verdict: `match`, `mismatch`, or a variant."""

    about: str
    stored: Stored
    service: str
    right: str
    fields: tuple[str, ...] = ("text",)
    source: str = "text"


CUT = "truncated to 256"
FOUND = ("name", "summary", "text")
PARTS = ("name", "summary")
JOINED = "{name}. {summary}"
CASES = (
    Case("MiniLM", Stored(MINILM), MINILM, MATCH),
    Case("MiniLM", Stored(MINILM), E5, REFUSED),
    Case("E5", Stored(E5), E5, MATCH),
    Case("E5", Stored(E5), MINILM, REFUSED),
    Case("E5, as queries", Stored(E5, "query"), E5, "query prefix"),
    Case("E5, as queries", Stored(E5, "query"), MINILM, REFUSED),
    Case('MiniLM, "passage: " before', Stored(MINILM, prefix="passage: "), MINILM, 'prefix "passage: "'),
    Case('MiniLM, "passage: " before', Stored(MINILM, prefix="passage: "), E5, REFUSED),
    Case("MiniLM, 256 dimensions", Stored(MINILM, cut=256), MINILM, CUT),
    Case("MiniLM, 256 dimensions", Stored(MINILM, cut=256), E5, REFUSED),
    Case("E5, 256 dimensions", Stored(E5, cut=256), E5, CUT),
    Case("E5, 256 dimensions", Stored(E5, cut=256), MINILM, REFUSED),
    Case("MiniLM, lengths 1 to 9", Stored(MINILM, scaled=True), MINILM, "not normalized"),
    Case("MiniLM, lengths 1 to 9", Stored(MINILM, scaled=True), E5, REFUSED),
    Case("WordLlama, lower case", Stored(WORDS, lower=True), WORDS, "lower case"),
    Case("WordLlama", Stored(WORDS), MINILM, REFUSED),
    Case("MiniLM, field to be found", Stored(MINILM), MINILM, MATCH, FOUND),
    Case("MiniLM, field to be found", Stored(MINILM), E5, REFUSED, FOUND),
    Case("E5, field to be found", Stored(E5), E5, MATCH, FOUND),
    Case("E5, field to be found", Stored(E5), MINILM, REFUSED, FOUND),
    Case("MiniLM, two fields joined", Stored(MINILM, text=JOINED), MINILM, MATCH, PARTS, JOINED),
)


@dataclass(slots=True)
class Result:
    """What the trials of one case gave; agreement and self-recall are the least and greatest."""

    case: Case
    trials: int = 0
    right: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    agreement: tuple[float, float] = (math.inf, -math.inf)
    self_recall: tuple[float, float] = (math.inf, -math.inf)

    def add(self, proof: Proof) -> None:
        said = ", ".join(proof.variants) or proof.verdict
        refused = proof.verdict not in ("match", "variant")
        right_source = proof.source is not None and proof.source.text == self.case.source
        self.trials += 1
        self.right += refused if self.case.right == REFUSED else said == self.case.right and right_source
        self.verdicts[said] += 1
        if proof.numbers is not None:
            self.agreement = _wider(self.agreement, proof.numbers.agreement)
            self.self_recall = _wider(self.self_recall, proof.numbers.self_recall)


def _wider(span: tuple[float, float], value: float) -> tuple[float, float]:
    return min(span[0], value), max(span[1], value)


async def measure(texts: int, trials: int, rows: int, cases: Sequence[Case] = CASES) -> list[Result]:
    """Trials of every case, with the same draws."""
    settings = Settings(proof_rows=rows, inference_cache_mb=512)
    inference = Inference.from_settings(settings)
    runtime = Runtime(settings, create_engine("postgresql://nowhere", settings), inference)
    apps = load_apps()
    draw = np.random.default_rng(20_26)
    apps = [apps[n] for n in draw.choice(len(apps), texts, replace=False)]
    draws = [draw.choice(texts, rows, replace=False) for _ in range(trials)]
    results = []
    try:
        for case in track(cases, "Embedding and judging", console=Console(stderr=True)):
            vectors = await _vectors(inference, case.stored, apps)
            results.append(result := Result(case))
            for chosen in draws:
                drawn = _drawn(case, vectors[chosen], [apps[n] for n in chosen])
                result.add(await judge(runtime, drawn, "v", case.service, math.inf))
    finally:
        await inference.close()
        await runtime.engine.dispose()
    return results


async def _vectors(inference: Inference, stored: Stored, apps: Sequence[App]) -> Vectors:
    texts = [stored.prefix + stored.text.format(**_payload(app)) for app in apps]
    vectors = await inference.embed(stored.service, [t.lower() if stored.lower else t for t in texts], stored.task)
    cut = vectors[:, : stored.cut]
    lengths = np.random.default_rng(1).uniform(1, 9, (len(cut), 1)) if stored.scaled else 1.0
    made: Vectors = (cut / np.linalg.norm(cut, axis=1, keepdims=True) * lengths).astype(np.float32)
    return made


def _drawn(case: Case, vectors: Vectors, apps: Sequence[App]) -> Drawn:
    config = VectorConfig("v", "v", vectors.shape[1], "cosine", "v_hnsw", "hnsw_vector", "ready")
    texts = {name: [_payload(app)[name] for app in apps] for name in case.fields}
    return Drawn(config, vectors, texts, given=len(case.fields) == 1)


def _payload(app: App) -> Mapping[str, str]:
    return {"name": app.name, "summary": app.summary, "text": app.text}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.proof", description=__doc__)
    for name, default in (("texts", 400), ("trials", 100), ("rows", 64)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    given = parser.parse_args()
    results = asyncio.run(measure(given.texts, given.trials, given.rows))
    Console().print(_table(results, given.rows))
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


def _table(results: Sequence[Result], rows: int) -> Table:
    table = Table(title=f"Verdicts on {rows} stored rows of Debian's applications")
    for column in (
        "stored vectors",
        "service",
        "right verdict",
        "right",
        "agreement",
        "self-recall",
        "said",
    ):
        table.add_column(column, justify="right" if column == "right" else "left")
    for each in results:
        colour = "green" if each.right >= 0.99 * each.trials else "red"
        said = ", ".join(f"{verdict} {count}" for verdict, count in each.verdicts.most_common())
        spans = ["{:.3f} to {:.3f}".format(*span) for span in (each.agreement, each.self_recall)]
        share = f"[{colour}]{each.right}/{each.trials}[/{colour}]"
        table.add_row(each.case.about, each.case.service, each.case.right, share, *spans, said)
    return table


if __name__ == "__main__":
    main()
