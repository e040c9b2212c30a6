"""The update that benchmarks/learner.py times with our code and with TRL: one group of completions of one prompt.

Guarantees: the prompt has exactly the requested number of tokens, nearly all of them visual; completions contain only
tokens that a policy can draw. `write` stores everything that another program needs for the same update.

`python -m benchmarks.learner_task FOLDER TASK.npz` makes model and task, and prints the sizes and the vision share as
JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from evidence.errors import BadInput
from evidence.families import read_family
from evidence.types import Prompt
from learner.model.patches import Patcher
from learner.model.tiny import TinySpec, create_tiny_model
from rollout.prompt import ChatEncoder

# Proportions of Qwen2.5-VL-3B: width of both MLPs over that of their streams (5.4 and 2.7), FLOPs of the head over
# those of all text layers (.11 per token), and the vision tower's share of a forward over 512 tokens of which 448 are
# visual (.41 for the 3B). The layers are few and wide, because in narrow ones attention has a larger share than in a
# 3B.
SIZES = TinySpec(
    text_layers=2,
    text_width=512,
    text_mlp=2752,
    text_heads=8,
    vision_layers=2,
    vision_width=256,
    vision_mlp=688,
    vision_heads=4,
    vocab=2_200,
)
CORPUS = "Frame 1 at 0.5s: Which circle is red?"
FRAME_TILES = 8  # a frame is 8 x 8 tokens: 224 x 224 pixels


@dataclass(frozen=True)
class Task:
    """One group of G completions of C tokens.

    frames: uint8 [n, H, W, 3], the images of `prompt`. completions: int32 [G, C]. advantages: float32 [G].
    behaviour: float32 [G, C], log-probs under the policy that drew them.
    """

    prompt: Prompt
    frames: np.ndarray
    completions: np.ndarray
    advantages: np.ndarray
    behaviour: np.ndarray


def make_task(
    folder: Path, prompt_tokens: int, completion_tokens: int, group: int, sizes: TinySpec | None = SIZES, seed: int = 0
) -> Task:
    """A random task for the model in `folder`. The model is created first, with these `sizes`, unless they are None.

    Raises BadInput if `prompt_tokens` is too small for a frame and the question.
    """
    if sizes is not None:
        # Enough different words for the vocabulary.
        numbers = map(str, range(3 * sizes.vocab))
        create_tiny_model(folder, sizes, corpus=[*[CORPUS] * 20, *numbers], seed=seed)
    encoder = ChatEncoder(folder)
    prompt = _prompt_of(encoder, prompt_tokens)
    rng = np.random.default_rng(seed)
    side = FRAME_TILES * encoder.tile
    drawable = np.setdiff1d(np.arange(len(encoder.tokenizer)), [*encoder.banned_ids, *encoder.stop_ids])
    advantages = rng.normal(size=group)
    return Task(
        prompt=prompt,
        frames=rng.integers(0, 256, (len(prompt.grids), side, side, 3), np.uint8),
        completions=rng.choice(drawable, (group, completion_tokens)).astype(np.int32),
        advantages=((advantages - advantages.mean()) / advantages.std()).astype(np.float32),
        # Near the log-probs of random weights, so that some ratios are clipped and some are not.
        behaviour=rng.normal(-np.log(len(drawable)), 0.1, (group, completion_tokens)).astype(np.float32),
    )


def _prompt_of(encoder: ChatEncoder, tokens: int) -> Prompt:
    """A prompt of exactly `tokens` tokens: as many frames as fit, each after its time, and a question that fills the
    rest."""
    size = (FRAME_TILES * encoder.tile,) * 2

    def encode(frames: int, dots: int) -> Prompt:
        timed_frames = [part for n in range(frames) for part in (f"{n}s ", size)]
        return encoder.encode([*timed_frames, f"Which circle is red?{'.' * dots}"])

    frames = 1
    while len(encode(frames + 1, 0).token_ids) <= tokens:
        frames += 1
    prompt = encode(frames, max(0, tokens - len(encode(frames, 0).token_ids)))
    if len(prompt.token_ids) != tokens:
        raise BadInput(
            f"prompt = {tokens}: a prompt of {frames} frames has {len(prompt.token_ids)} tokens; ask for more"
        )
    return prompt


def patches(task: Task, folder: Path) -> torch.Tensor:
    """The patches of the prompt's frames, float32 [patches, dim]."""
    return Patcher.of_model(folder).patches([task.frames], task.prompt.frame_counts)


def write(task: Task, folder: Path, path: Path, logprobs: np.ndarray | None = None) -> None:
    """Save the task as arrays for a program that does not use our code (benchmarks/learner_trl.py lists them).

    `logprobs`: float32 [G, C], our log-probs of the completions over the whole vocabulary, for comparison.
    """
    arrays = {
        "prompt_ids": task.prompt.token_ids,
        "completion_ids": task.completions,
        "pixel_values": patches(task, folder).numpy(),
        "image_grid_thw": task.prompt.grids,
        "advantages": task.advantages,
        "behaviour": task.behaviour,
    }
    np.savez(path, **arrays, **({} if logprobs is None else {"logprobs": logprobs}))


@torch.no_grad()
def vision_flops(task: Task, folder: Path) -> tuple[float, float]:
    """(FLOPs of the vision tower, all FLOPs), counted in a forward over the prompt and one completion, as in `none`."""
    # The matrix products of eager attention are counted; the CPU's fused attention would not be.
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ids = torch.from_numpy(np.concatenate([task.prompt.token_ids, task.completions[0]])).long()[None]
    with FlopCounterMode(display=False) as counter:
        model(
            input_ids=ids,
            pixel_values=patches(task, folder),
            image_grid_thw=torch.from_numpy(task.prompt.grids).long(),
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
            logits_to_keep=task.completions.shape[1],
        )
    flops = {module: sum(counts.values()) for module, counts in counter.get_flop_counts().items()}
    return flops[f"{type(model).__name__}.{read_family(folder).vision_tower}"], flops["Global"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the random model and the task of the learner's benchmark.")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("task", type=Path, help="where the task goes (.npz)")
    args = parser.parse_args()
    task = make_task(args.folder, prompt_tokens=512, completion_tokens=64, group=8)
    write(task, args.folder, args.task)
    tower, whole = vision_flops(task, args.folder)
    share = tower / whole
    print(json.dumps({"sizes": asdict(SIZES), "frames": len(task.frames), "vision_share": share}))


if __name__ == "__main__":
    main()
