"""The update that benchmarks/learner.py times, by ours and by others' code: one group of completions of one prompt.

Guarantees: the prompt holds exactly the tokens asked for, nearly all of them of frames; completions hold no token that
a policy could not have drawn. What another program needs to do the same update is in the file that `write` makes.

`python -m benchmarks.learner_task FOLDER TASK.npz` makes both and prints the sizes and the vision share, in JSON.
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

# In the proportions of Qwen2.5-VL-3B: both MLPs' widths over those of their streams (5.4 and 2.7), the head's FLOPs
# over those of all text layers (.11 a token), and the vision tower's part of a forward over 512 tokens of which 448 are
# visual (.41 by the 3B's sizes). Few layers and wide, since in narrow ones attention outweighs what it does in a 3B.
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
    """One group: G completions of C tokens. `frames`: uint8 [n, H, W, 3], the images of `prompt`.

    `completions`: int32 [G, C]. `advantages`: float32 [G]. `behaviour`: float32 [G, C], log-probs.
    """

    prompt: Prompt
    frames: np.ndarray
    completions: np.ndarray
    advantages: np.ndarray
    behaviour: np.ndarray


def make_task(
    folder: Path, prompt_tokens: int, completion_tokens: int, group: int, sizes: TinySpec | None = SIZES, seed: int = 0
) -> Task:
    """A random task for the model in `folder`, which is made first, of these `sizes`; None: one is there already.

    Raises BadInput if `prompt_tokens` leave no room for a frame and the question.
    """
    if sizes is not None:
        # Different words enough for the vocabulary.
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
        # About what random weights say of any token, so that some ratios are clipped and some are not.
        behaviour=rng.normal(-np.log(len(drawable)), 0.1, (group, completion_tokens)).astype(np.float32),
    )


def _prompt_of(encoder: ChatEncoder, tokens: int) -> Prompt:
    """Of exactly so many tokens: as many frames as fit, each after its time, and a question that fills the rest."""
    size = (FRAME_TILES * encoder.tile,) * 2

    def encode(frames: int, dots: int) -> Prompt:
        shown = [part for n in range(frames) for part in (f"{n}s ", size)]
        return encoder.encode([*shown, f"Which circle is red?{'.' * dots}"])

    frames = 1
    while len(encode(frames + 1, 0).token_ids) <= tokens:
        frames += 1
    prompt = encode(frames, max(0, tokens - len(encode(frames, 0).token_ids)))
    if len(prompt.token_ids) != tokens:
        raise BadInput(f"{tokens} tokens are no prompt of {frames} frames: it came out as {len(prompt.token_ids)}")
    return prompt


def patches(task: Task, folder: Path) -> torch.Tensor:
    """float32 [patches, dim] of the prompt's frames."""
    return Patcher.of_model(folder).patches([task.frames], task.prompt.frame_counts)


def write(task: Task, folder: Path, path: Path, logprobs: np.ndarray | None = None) -> None:
    """The task as arrays for a program without our code (benchmarks/learner_trl.py lists them).

    `logprobs`: float32 [G, C], ours of the completions over the whole vocabulary, for the other program to agree with.
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
    """FLOPs of a forward over the prompt and one completion, as in `none`, counted: the vision tower's, and all."""
    # Eager attention is matrix products, which are counted; the CPU's fused attention is not.
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
    found = {"sizes": asdict(SIZES), "frames": len(task.frames), "vision_share": share}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
