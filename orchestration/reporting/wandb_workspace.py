"""A ready workspace for wandb: sections of charts over a run's metrics, as a spec of the library wandb-workspaces.

    pip install wandb-workspaces==0.4.13
    python -m orchestration.reporting.wandb_workspace ENTITY        # saves it as a new view of the project `ser`
    python -m orchestration.reporting.wandb_workspace --print       # prints its spec, without a network

The library is optional: nothing else needs it. Saving has not been tried, for want of an account.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from evidence.errors import BadInput

PROJECT = "ser"
NAME = "SER training"


@dataclass(frozen=True)
class Chart:
    """`metrics`: whose lines it shows. `pattern`: or a regular expression of them."""

    title: str
    metrics: tuple[str, ...] = field(default=())
    pattern: str | None = None


SECTIONS: dict[str, tuple[Chart, ...]] = {
    "Reward": (
        Chart("Reward", ("reward",)),
        Chart("Terms", pattern="reward/[^/]+"),
        Chart("Which term pays", pattern="learner/advantage_share/.+"),
        Chart("Groups without contrast", ("reward/equal_groups",)),
        Chart("Evaluations", pattern="eval/.+/(reward|accuracy|iou)"),
    ),
    "Is it honest?": (
        Chart("Agreement with labelled boxes", ("agreement/spearman", "agreement/iou", "agreement/reward")),
        Chart("Claims per completion", ("claims/per_completion",)),
        Chart("Box area", ("claims/box_area",)),
        Chart("Commonest phrase", ("claims/top_phrase_share",)),
        Chart("Tokens per completion", ("rollout/tokens",)),
        Chart("Alerts", pattern="alert/.+"),
    ),
    "Learner": (
        Chart("Learning rate", ("learner/learning_rate",)),
        Chart("Entropy", ("learner/entropy",)),
        Chart("Gradient norm", ("learner/grad_norm",)),
        Chart("KL", ("learner/behaviour_kl", "learner/kl")),
        Chart("Clipped tokens, effective share", ("learner/clipped", "learner/effective_share")),
        Chart("Staleness", ("staleness/mean", "staleness/max", "staleness/bound")),
    ),
    "Where the time goes": (
        Chart("Seconds of a step", ("time/step_s", "time/wait_s", "time/wait_referee_s", "time/eval_s")),
        Chart("Tokens per second", ("rollout/tokens_per_s", "learner/tokens_per_s")),
        Chart("Load of the engines", pattern="engines/[0-9]+/load"),
        Chart("Weights", ("weights/publish_s", "weights/update_s")),
        Chart("Utilisation of a rank's GPU", ("learner/mfu",)),
        Chart("Memory", ("memory/host_gib", "learner/host_gib", "learner/gpu_gib")),
        Chart("What became of tokens", pattern="tokens/.+"),
    ),
}


def workspace(entity: str, project: str) -> Any:
    """The workspace, built and not saved. Raises BadInput without the library."""
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise BadInput("wandb-workspaces is not installed: pip install wandb-workspaces==0.4.13") from None

    def panel(chart: Chart) -> Any:
        return panels.LinePlot(title=chart.title, x="step", y=list(chart.metrics), metric_regex=chart.pattern)

    sections = [
        workspaces.Section(name=name, panels=[panel(chart) for chart in charts], is_open=True)
        for name, charts in SECTIONS.items()
    ]
    media = [panels.MediaBrowser(media_keys=["samples/frames"]), panels.MediaBrowser(media_keys=["samples/table"])]
    sections.append(workspaces.Section(name="Samples", panels=media))
    return workspaces.Workspace(entity=entity, project=project, name=NAME, sections=sections)


def spec(entity: str, project: str) -> dict[str, Any]:
    """What saving it would send, as checked by the library's own schema."""
    model = workspace(entity, project)._to_model()
    return json.loads(model.model_dump_json(by_alias=True, exclude_none=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entity", nargs="?", default="", metavar="ENTITY", help="a user or team in wandb")
    parser.add_argument("--project", default=PROJECT, help="(%(default)s)")
    parser.add_argument("--print", action="store_true", help="print the spec and save nothing")
    args = parser.parse_args()
    if args.print:
        print(json.dumps(spec(args.entity, args.project), indent=2))
    elif not args.entity:
        raise BadInput("ENTITY is missing: name the user or team in wandb, or give --print")
    else:
        print(workspace(args.entity, args.project).save().url)


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"wandb_workspace: {error}", file=sys.stderr)
        sys.exit(2)
