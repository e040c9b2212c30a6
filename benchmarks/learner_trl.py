"""Runs the update of benchmarks/learner_task.py with TRL's GRPOTrainer, one step per line on standard input, and prints
the CPU seconds of each step.

Run by the Python of benchmarks/trl_environment.py, without any of our code, so that only TRL is timed: from
`on_step_begin` to `on_step_end`, which covers forward, loss, backward, clipping and AdamW. Everything is at TRL's
defaults except for the settings that make it the same update as ours (GRPO's loss, float32, no checkpointing, a frozen
vision tower by default). Instead of generating, TRL gets the completions. Without Triton, TRL 1.16 also computes the
logits of every prompt token, which it does not on a GPU; here it is made to behave as on a GPU, and is faster.

The task's file: prompt_ids [P], completion_ids [G, C], pixel_values [patches, dim], image_grid_thw [n, 3], advantages
[G], behaviour [G, C] and optionally logprobs [G, C], the expected log-probs of the completions. The last line on stdout
is JSON: versions, and loss and gradient norm of the first step.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
import transformers
import trl
import trl.trainer.utils
from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback, TrainerControl
from trl import GRPOConfig, GRPOTrainer

CLIP = 0.2
MAX_STEPS = 1000


class FixedCompletions(GRPOTrainer):
    """GRPOTrainer that uses the task's completions instead of generating. `losses`: the loss of each step."""

    def __init__(self, batch: dict[str, Any], **arguments: Any):
        super().__init__(**arguments)
        self.batch, self.losses = batch, []

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        return dict(self.batch)

    def compute_loss(self, *arguments: Any, **named: Any) -> torch.Tensor:
        loss = super().compute_loss(*arguments, **named)
        self.losses.append(loss.item())
        return loss


class Turn(TrainerCallback):
    """Runs a step for each line on standard input and prints its CPU seconds."""

    def on_step_begin(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        if not sys.stdin.readline():
            control.should_training_stop = True  # after one more step
        self.start = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        print(f"cpu_seconds {time.process_time() - self.start}", flush=True)


def batch_of(task: dict[str, np.ndarray], image_token: int) -> dict[str, Any]:
    """GRPOTrainer's input for G prompts and completions, with the images repeated for each completion."""
    arrays = {name: torch.from_numpy(array) for name, array in task.items()}
    completions = arrays["completion_ids"].long()
    prompts = arrays["prompt_ids"].long().repeat(len(completions), 1)
    return {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "mm_token_type_ids": torch.cat([(prompts == image_token).int(), torch.zeros_like(completions).int()], dim=1),
        "pixel_values": arrays["pixel_values"].repeat(len(completions), 1),
        "image_grid_thw": arrays["image_grid_thw"].long().repeat(len(completions), 1),
        "num_images": [len(arrays["image_grid_thw"])] * len(completions),
        "advantages": arrays["advantages"],
        "old_per_token_logps": arrays["behaviour"],
        "num_items_in_batch": torch.tensor(completions.numel()),
    }


@torch.no_grad()
def logprobs(trainer: FixedCompletions) -> np.ndarray:
    """The completions' log-probs as TRL computes them for its loss, float32 [G, C]."""
    batch = trainer.batch
    kept = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
    values, *_ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
        batch["completion_ids"].shape[1],
        **{name: batch[name] for name in kept},
    )
    return values.numpy()


def trainer_of(folder: str, task: dict[str, np.ndarray], train_vision: bool, scratch: str) -> FixedCompletions:
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    model.model.visual.requires_grad_(train_vision)
    group, tokens = task["completion_ids"].shape
    config = GRPOConfig(
        output_dir=scratch,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        loss_type="grpo",
        epsilon=CLIP,
        num_generations=group,
        per_device_train_batch_size=group,
        max_completion_length=tokens,
        max_steps=MAX_STEPS,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    return FixedCompletions(
        batch_of(task, model.config.image_token_id),
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["given"] * MAX_STEPS}),
        processing_class=AutoProcessor.from_pretrained(folder),
    )


def score_completions_only() -> None:
    """Make TRL skip the prompt's logits, as it does with Triton. Its kernels, in another module, stay those for CPU."""
    trl.trainer.utils._use_triton = lambda device: True


def run(path: str, folder: str, train_vision: bool) -> dict[str, Any]:
    task = dict(np.load(path))
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_of(folder, task, train_vision, scratch)
        agreement = {}
        if "logprobs" in task:
            agreement["logprobs_max_difference"] = float(np.abs(logprobs(trainer) - task["logprobs"]).max())
        trainer.add_callback(Turn())
        trainer.train()
    return {
        "trl": trl.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "loss": trainer.losses[0],
        "grad_norm": trainer.state.log_history[0]["grad_norm"],
        **agreement,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="TRL's GRPOTrainer on a given group of completions, step by step.")
    parser.add_argument("task", help="the file written by benchmarks/learner_task.py (.npz)")
    parser.add_argument("folder", help="the model, in Hugging Face format")
    parser.add_argument("--threads", type=int, default=1, help="default %(default)s")
    parser.add_argument("--train-vision", action="store_true", help="train the vision tower, too")
    args = parser.parse_args()
    score_completions_only()
    torch.set_num_threads(args.threads)
    print(json.dumps(run(args.task, args.folder, args.train_vision)))


if __name__ == "__main__":
    main()
