"""What a policy answers to V-STaR's questions about the embedded world, and how good the answers are.

    python -m benchmarks.vstar_answers assets/policy-vstar                # one table for each of its two forms

Every question is answered by one engine, greedily and, for elections, with several draws: a temperature, and frames as
they are or brighter. Brightness keeps the truth; a crop or a mirror image would move a shape to another quadrant. The
completions are recorded, and a recorded set is not drawn again.

A completion is in form if its answer can be read (a text, two numbers, or boxes by second) and, with claims, it is
well-formed and has a valid claim; in RLER's form, it has a thought, cited frames and an answer in this order, and a
confidence.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.election.rler import NO_SAMPLE
from evaluation.reading import PlacedRow
from evaluation.vstar.answers import boxes_in, tagged_answer, times_in
from evaluation.vstar.prompts import questions, result
from evaluation.vstar.report import evaluate
from evidence.answers import confidence
from evidence.digests import file_digest, model_digest
from evidence.errors import BadInput
from evidence.files import write_text
from evidence.grammar import parse
from evidence.plain import dumps, plain
from evidence.sampling import SamplingContract
from evidence.types import Sample
from orchestration.config import load_config
from referee.terms.form import claim_format
from referee.terms.rler import rler_format
from referee.terms.view import GroupView
from rollout.dataset.shapes import FRAME_SIDE
from rollout.dataset.vstar import SUFFIX
from rollout.engine import Engine
from rollout.engine_setup import EngineConfig
from rollout.frames.decoding import decode
from rollout.prompt import ChatEncoder, build_prompt
from rollout.template import PromptTemplate

ROOT = Path(__file__).parents[1]
TEST = ROOT / "data/shapes-vstar/test.json"
CLAIMS, CITED = "claims", "cited frames"
FORMS = {CLAIMS: ROOT / "configs/world/vstar.yaml", CITED: ROOT / "configs/world/vstar-cited.yaml"}
KINDS = ("what", "when", "where", "where_2", "when_2")
MAX_TOKENS, MAX_MODEL_LEN = 192, 512
# Metrics of a report, and their names in tables.
METRICS = {
    ("acc",): "Acc",
    ("chain1", "m_tiou"): "tIoU 1",
    ("chain2", "m_tiou"): "tIoU 2",
    ("chain1", "m_viou"): "vIoU 1",
    ("chain2", "m_viou"): "vIoU 2",
    ("mam",): "mAM",
    ("mlgm",): "mLGM",
}
Row = dict[str, Any]
Texts = dict[str, list[str]]  # "position/kind" -> a completion for each draw


@dataclass(frozen=True)
class Draw:
    """How a completion is drawn. temperature: 0 is greedy. brightness: a factor on the frames' pixels."""

    temperature: float = 0.0
    brightness: float = 1.0


GREEDY = Draw()


@dataclass(frozen=True)
class Asked:
    """How the policy is shown clips and asked: a file of FORMS."""

    contract: SamplingContract = field(default_factory=SamplingContract)
    template: PromptTemplate = field(default_factory=PromptTemplate)


def answers(
    model: Path,
    annotation: Path,
    limit: int,
    form: str,
    draws: Sequence[Draw],
    seed: int,
    file: Path,
    kinds: Sequence[str] = KINDS,
) -> Texts:
    """The completions about the first `limit` rows' questions of these kinds, from `file` if they are recorded there.
    Raises BadInput if it holds other ones."""
    drawn = {
        "model": model_digest(str(model)),
        "data": file_digest(annotation),
        "form": form,
        "limit": limit,
        "draws": [asdict(draw) for draw in draws],
        "seed": seed,
        "kinds": kinds,
    }
    if file.is_file():
        recorded = json.loads(file.read_text(encoding="utf-8"))
        if recorded["drawn"] != plain(drawn):
            raise BadInput(f"{file}: its completions were drawn otherwise; remove it, or name another folder")
        return recorded["texts"]
    texts = asyncio.run(_answered(model, annotation, rows_of(annotation, limit), FORMS[form], draws, seed, kinds))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, dumps({"drawn": drawn, "texts": texts}))
    return texts


def rows_of(annotation: Path, limit: int) -> list[Row]:
    try:
        return json.loads(annotation.read_text(encoding="utf-8"))[:limit]
    except FileNotFoundError:
        raise BadInput(f"{annotation}: does not exist; `make data/shapes-vstar` makes it") from None


async def _answered(
    model: Path,
    annotation: Path,
    rows: Sequence[Row],
    form: Path,
    draws: Sequence[Draw],
    seed: int,
    kinds: Sequence[str],
) -> Texts:
    asked, encoder = load_config(Asked, form), ChatEncoder(model)
    sizes = EngineConfig(str(model.absolute()), max_model_len=MAX_MODEL_LEN, max_images=asked.contract.frames)
    engine = await Engine.start(sizes, encoder.banned_ids)

    async def texts(position: int, row: Row) -> Texts:
        video = annotation.parent / "videos" / f"{row['vid']}{SUFFIX}"
        frames, info = decode(str(video), asked.contract)

        async def drawn(kind: str, text: str) -> list[str]:
            prompt = build_prompt(encoder, asked.template, Sample("", "", "", text, "", str(video)), info)
            number = position * len(KINDS) + KINDS.index(kind)
            jobs = (
                engine.generate(
                    prompt, brightened(frames, d.brightness), 1, d.temperature, MAX_TOKENS, _seed(seed, number, n)
                )
                for n, d in enumerate(draws)
            )
            return [completion.text for (completion,) in await asyncio.gather(*jobs)]

        wordings = questions(row)
        return {f"{position}/{kind}": await drawn(kind, wordings[kind]) for kind in kinds}

    try:
        parts = await asyncio.gather(*(texts(position, row) for position, row in enumerate(rows)))
    finally:
        await engine.stop()
    return {name: completions for part in parts for name, completions in part.items()}


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def brightened(frames: np.ndarray, factor: float) -> np.ndarray:
    """uint8 [frames, H, W, 3]."""
    return frames if factor == 1 else np.clip(frames * factor, 0, 255).astype(np.uint8)


def report(rows: Sequence[Row], texts: Mapping[str, str]) -> dict[str, Any]:
    """V-STaR's official report, with boxes converted from the frames that the policy saw, and exact answers."""
    placed = [
        PlacedRow(TEST, n, result(row, {kind: texts[f"{n}/{kind}"] for kind in KINDS}, (FRAME_SIDE, FRAME_SIDE)))
        for n, row in enumerate(rows)
    ]
    return evaluate(placed, boxes="converted")


def in_form(kind: str, form: str, text: str) -> bool:
    answer = tagged_answer(text)
    readable = {"what": bool(answer.strip()), "when": bool(times_in(answer)), "where": _has_boxes(answer)}
    view = GroupView(NO_SAMPLE, (text,), (parse(text),))
    if form == CLAIMS:
        return readable[kind.removesuffix("_2")] and claim_format(view) == [1.0]
    return readable[kind.removesuffix("_2")] and rler_format(view) == [1.0] and confidence(text) is not None


def _has_boxes(answer: str) -> bool:
    boxes = boxes_in(answer)
    return isinstance(boxes, dict) and any(isinstance(box, list) and len(box) == 4 for box in boxes.values())


def quality(rows: Sequence[Row], texts: Mapping[str, str], form: str) -> list[str]:
    """Cells of the model card: the share in form of each kind, then the metrics."""
    shares = [np.mean([in_form(kind, form, texts[f"{n}/{kind}"]) for n in range(len(rows))]) for kind in KINDS]
    numbers = report(rows, texts)
    return [*(f"{share:.3f}" for share in shares), *(f"{value(numbers, key):.3f}" for key in METRICS)]


def value(numbers: Mapping[str, Any], key: Sequence[str]) -> Any:
    for name in key:
        numbers = numbers[name]
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=TEST, help="annotation (%(default)s)")
    parser.add_argument("--limit", type=int, default=400, help="rows, from the first (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/vstar-answers", help="the record (%(default)s)")
    args = parser.parse_args()
    header = ["form", *(f"in form: {kind}" for kind in KINDS), *METRICS.values()]
    table = [header, ["---"] * len(header)]
    rows = rows_of(args.data, args.limit)
    for form in FORMS:
        file = args.out / f"{args.model.absolute().name}-{form.replace(' ', '-')}-{args.temperature:g}.json"
        drawn = answers(args.model, args.data, args.limit, form, [Draw(args.temperature)], 0, file)
        table.append([form, *quality(rows, {name: first for name, (first,) in drawn.items()}, form)])
    print("\n".join(f"| {' | '.join(cells)} |" for cells in table))


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"vstar_answers: {error}", file=sys.stderr)
        sys.exit(2)
