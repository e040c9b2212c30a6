"""The model from which the embedded policy for V-STaR's questions starts: assets/policy with a larger vocabulary.

    python -m benchmarks.vstar_start data/shapes-vstar/train-sft.jsonl runs/vstar-start

The new tokenizer is trained on the first policy's texts and on those of the warm start. Weights are those of the first
policy, embeddings by the text of their token; a token that it does not have gets a random embedding.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

from evidence.errors import BadInput
from evidence.files import whole_folder
from learner.model.tiny import TinySpec, create_tiny_model
from orchestration.commands.sft import SftConfig
from orchestration.config import load_config
from rollout.dataset import read_dataset
from rollout.dataset.shapes import COLOURS, SHAPES

ROOT = Path(__file__).parents[1]
POLICY, CONFIG = ROOT / "assets/policy", ROOT / "configs/sft/policy-vstar.yaml"
SAMPLES = 20_000  # of the warm start, whose text the tokenizer is trained on
REPEATED = 1000  # times that a text without samples counts


def corpus(dataset: Path) -> list[str]:
    samples = read_dataset(dataset)[:SAMPLES]
    template = load_config(SftConfig, CONFIG, ["model=none"]).template
    names = [f"the {colour} {form}" for colour in COLOURS for form in SHAPES]
    return [
        *(f"{s.question} {s.answer} {s.reasoning}" for s in samples),
        *[template.question, *template.tasks.values(), *names, *(f"{n / 10:.1f}" for n in range(10))] * REPEATED,
    ]


def make_start(dataset: Path, out: Path, seed: int) -> tuple[int, int]:
    """Write the model and return the numbers of its tokens, and of those that are new."""
    with whole_folder(out) as part:
        create_tiny_model(part, TinySpec(), corpus(dataset), seed)
        old, new = (AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (POLICY, part))
        known = [token for token in new if token in old]
        learnt, model = (
            AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32) for folder in (POLICY, part)
        )
        embeddings = model.get_input_embeddings().weight.detach().clone()
        learnt_embeddings = learnt.get_input_embeddings().weight.detach()
        embeddings[[new[token] for token in known]] = learnt_embeddings[[old[token] for token in known]]
        learnt.resize_token_embeddings(len(new), mean_resizing=False)
        learnt.get_input_embeddings().weight.data.copy_(embeddings)
        model.load_state_dict(learnt.state_dict())
        model.save_pretrained(part)
    return len(new), len(new) - len(known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="the data of the warm start")
    parser.add_argument("out", type=Path, help="the new model's folder")
    parser.add_argument("--seed", type=int, default=0, help="of the random embeddings")
    args = parser.parse_args()
    tokens, new = make_start(args.dataset, args.out, args.seed)
    print(f"{args.out}: {tokens} tokens, {new} of them new")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"vstar_start: {error}", file=sys.stderr)
        sys.exit(2)
