"""Every metric of `ser train`, with its unit and meaning: the one table that docs/dashboards.md shows and tests check.

A word in capitals stands for a name: `reward/TERM` for a term of the reward, `engines/N/load` for the number of an
engine. Pure.

    python -m orchestration.reporting.metric_table        # the table as docs/dashboards.md has it
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

PLACEHOLDER = re.compile(r"\b([A-Z]+)\b")


@dataclass(frozen=True)
class Metric:
    """`unit`: empty for a number without one. `total`: whether it counts since the start of the run."""

    name: str
    unit: str
    meaning: str
    total: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        words = PLACEHOLDER.split(self.name)
        return re.compile("".join(".+" if number % 2 else re.escape(word) for number, word in enumerate(words)))


def _metrics(prefix: str, *rows: tuple[str, str, str], total: bool = False) -> list[Metric]:
    return [Metric(f"{prefix}{name}", unit, meaning, total) for name, unit, meaning in rows]


SECTIONS: dict[str, list[Metric]] = {
    "Axes": _metrics(
        "",
        ("step", "steps", "optimizer steps of the surviving lineage; the default axis in wandb"),
        ("trained_prompts", "prompts", "prompts trained until this step, each with a group of completions"),
        ("seconds", "s", "of training, the time before a resume included, the start of the parts not"),
        ("gpu_hours", "GPU-hours", "`seconds` times the GPUs that the config asks for; only with GPUs"),
    ),
    "Reward": _metrics(
        "",
        ("reward", "", "mean over the step's completions: the weighted sum of the terms, after gates"),
        ("reward/TERM", "", "mean of the raw value of a term over all completions for which it is known"),
        ("reward/TASK/TERM", "", "the same over the completions of one task"),
        ("reward/equal_groups", "share", "groups whose completions all got the same reward, and so teach nothing"),
        (
            "learner/advantage_share/TERM",
            "share",
            "of a term in the spread of the advantages within groups: which reward pays. The shares add up to 1 (a KL "
            "penalty in the reward is missing from the sum); a term that works against the others has a negative one",
        ),
    ),
    "Agreement with labelled boxes": _metrics(
        "agreement/",
        ("claims", "claims", "labelled claims of the last window of steps (`agreement.window`)"),
        ("spearman", "", "rank correlation of their scores with their IoU with the labelled boxes"),
        ("iou", "", "their mean IoU, which no reward sees"),
        ("reward", "", "mean r_SER over the same labelled samples"),
        ("alarm", "0 or 1", "1 while the reward rises, the correlation falls and the IoU does not follow"),
    ),
    "Claims": _metrics(
        "claims/",
        ("per_completion", "claims", "valid claims of a completion"),
        ("completions_with", "share", "completions with a valid claim"),
        ("box_area", "share", "mean area of their boxes, of the frame"),
        (
            *("top_phrase_share", "share"),
            "groups in which half of the completions with claims use the commonest phrase; from four groups on",
        ),
        ("top_phrase", "text", "that phrase, in small letters, made safe to show"),
    ),
    "Learner": [
        *_metrics(
            "learner/",
            ("loss", "", "the loss of the step"),
            ("learning_rate", "", "of the step"),
            ("grad_norm", "", "of all gradients, before clipping"),
            ("entropy", "nats", "mean over tokens; near 0, the policy no longer explores"),
            ("weight", "", "sum of the tokens' weights in the loss; 1 where the loss is a mean"),
            ("ratio", "", "mean importance ratio of the trained policy to the one that drew the tokens"),
            ("ratio_squared", "", "mean of its square"),
            (
                "effective_share",
                "share",
                "effective sample size of the ratios: (mean)² over the mean of squares; far below 1, few tokens count",
            ),
            ("clipped", "share", "tokens whose ratio is clipped"),
            ("bounded", "share", "tokens whose log-ratio is beyond the numerical bound; should be 0"),
            ("behaviour_kl", "nats", "k3 estimate of the KL from the policy that drew the tokens"),
            ("kl", "nats", "estimate of the KL to the reference policy, with one"),
            ("kl_taken_off", "", "mean KL penalty taken off the rewards, with `algorithm.kl.where: reward`"),
            ("left_out", "share", "tokens that the correction for off-policy data leaves out"),
            ("truncated", "share", "tokens whose correction is truncated"),
            ("overlong_filtered", "completions", "not trained on because they were cut at the greatest length"),
            ("tokens_per_s", "tokens/s", "completion tokens trained, over `learner/seconds`"),
            ("tflops", "TFLOP/s", "model FLOPs of one rank, over `learner/seconds`; work done twice counts once"),
            ("mfu", "share", "the same as a share of the dense bfloat16 peak of its GPU, where that is known"),
            ("seconds", "s", "forward, backward and optimizer, mean over the ranks"),
            ("host_gib", "GiB", "resident memory of a rank's process, mean over the ranks"),
            ("gpu_gib", "GiB", "peak of PyTorch's allocations on a rank's GPU in the step, mean over the ranks"),
        ),
        *_metrics(
            "learner/",
            ("skipped", "steps", "whose loss or gradient was not finite; should stay 0"),
            ("vision_hits", "clips", "whose features were kept, all ranks"),
            ("vision_misses", "clips", "that were encoded, all ranks"),
            total=True,
        ),
    ],
    "Completions and staleness": _metrics(
        "",
        ("rollout/tokens", "tokens", "of a completion, mean"),
        ("rollout/cut_short", "share", "completions cut at `sampling.max_tokens`"),
        ("rollout/versions", "versions", "of the weights that drew a completion, mean"),
        ("staleness/mean", "versions", "mean age of the step's groups"),
        ("staleness/max", "versions", "their greatest age"),
        ("staleness/bound", "versions", "the age that no group may pass"),
    ),
    "Engines": [
        *_metrics(
            "",
            ("rollout/tokens_per_s", "tokens/s", "drawn by all rollout engines; a group counts when it ends"),
            ("engines/N/tokens_per_s", "tokens/s", "drawn by one engine"),
            ("engines/N/load", "groups", "that one engine runs at once: seconds of its ended groups over elapsed ones"),
            ("engines/queue", "groups", "that wait for an engine at the end of the step"),
            ("engines/groups_min", "groups", "fewest that one engine began since the last step"),
            ("engines/groups_max", "groups", "most; far apart, the fleet waits for one of them"),
        ),
        *_metrics(
            "engines/",
            ("restarts", "restarts", "of engines and referees"),
            ("refused_updates", "weight sets", "that an engine could not fetch or verify, and did not load"),
            total=True,
        ),
    ],
    "Distributions and samples": [
        *_metrics(
            "histogram/",
            ("staleness", "groups", "by age in versions; in `metrics.jsonl`, `edges` and the `counts` between them"),
            ("length", "completions", "by tokens"),
            ("reward", "completions", "by reward, over the range of the step"),
            ("ratio", "tokens", "by importance ratio, in bins that are narrow around 1; 10 and more is 10"),
        ),
        *_metrics(
            "samples/",
            ("frames", "images", "frames of a group with the claimed boxes, by verdict; only in wandb"),
            ("table", "rows", "the completions of the same group with terms and verdicts; only in wandb"),
        ),
    ],
    "Alerts": _metrics(
        "alert/",
        (
            "NAME",
            "0 or 1",
            "1 at each step at which the rule holds: `stall`, `agreement`, `missing_verdicts`, "
            "`not_finite`, `entropy_collapse`, `length_drift`, `one_phrase`",
        ),
    ),
    "Weights": [
        *_metrics(
            "weights/",
            ("publish_s", "s", "the last publication: collecting the weights from the ranks"),
            ("update_s", "s", "the slowest engine's load of the publication before the last one"),
            ("sent", "share", "of the bytes of all weights that the last publication sent"),
        ),
        *_metrics(
            "weights/", ("forced", "publications", "of all weights, since a node could not follow changes"), total=True
        ),
    ],
    "Time": _metrics(
        "time/",
        ("step_s", "s", "of the step, from the wait for its groups to the publication of its weights"),
        ("wait_s", "s", "of it, the learner waited for groups"),
        ("wait_referee_s", "s", "of the wait, the last of these groups waited for its verdicts"),
        ("eval_s", "s", "the learner waited for an evaluation before this step; 0 with two or more engines"),
        ("longest_wait_s", "s", "the longest time so far in which no group ended"),
    ),
    "Memory": _metrics(
        "memory/",
        ("host_gib", "GiB", "used on the machine of the command, by all processes, without caches"),
        ("driver_gib", "GiB", "resident memory of the command's own process"),
    ),
    "What became of groups and tokens": _metrics(
        "",
        ("ledger/STATE", "groups", "in each state now; `trained` and `rejected` only grow"),
        ("rejected/REASON", "groups", "rejected for this reason"),
        (
            "tokens/OUTCOME",
            "tokens",
            "drawn and `trained`, rejected for a reason of `rejected/*`, `regenerated` after a failure, or of T-GRPO's "
            "`contrast`, which is never trained. Those of generations that never returned are not known",
        ),
        total=True,
    ),
    "Evidence": _metrics(
        "evidence/",
        ("claims", "claims", "complete ones"),
        ("invalid", "claims", "that could not be read"),
        ("asked", "claims", "put to the referee"),
        ("missing", "claims", "whose verdict came late or never"),
        ("loose_time", "claims", "with a temporal penalty"),
        ("guard: NAME", "claims", "that a guard refused, so that the referee was not asked"),
        ("left out: TERM", "groups", "of which a term was left out for want of a verdict"),
        ("failed generations", "groups", "that failed and were tried again"),
        total=True,
    ),
    "Referee": [
        *_metrics(
            "referee/",
            ("questions", "questions", "two for each claim, one for each judged answer"),
            ("cached", "questions", "answered from the cache"),
            ("deduplicated", "questions", "that were just being asked"),
            ("asked", "questions", "put to the model"),
            ("retried", "attempts", "after the first"),
            ("late", "questions", "without an answer in time"),
            ("failed", "questions", "that failed"),
            ("breaker_open", "questions", "refused by the open circuit breaker; should stay 0"),
            ("missing", "claims and answers", "without a verdict because of these; should stay 0"),
            ("cache_failures", "accesses", "of the disk cache that failed"),
            ("restarts", "restarts", "of referees"),
            ("stuck", "calls", "that timed out, so that the actor was replaced"),
            total=True,
        ),
        *_metrics(
            "referee/",
            ("cache_entries", "answers", "kept in memory"),
            ("disagreement", "", "mean distance between the referees of an ensemble"),
            ("N/calls", "calls", "under way at one actor at the end of the step"),
        ),
    ],
    "Frames": [
        *_metrics(
            "frames/",
            ("decoded", "files", "decoded"),
            ("second_decoder", "files", "that the first decoder could not read"),
            ("from_disk", "files", "read from `frames.cache_dir`"),
            ("prefetched", "files", "decoded ahead"),
            ("waits", "groups", "that waited for room in the store"),
            ("evicted", "files", "whose frames were dropped for others"),
            ("lost", "files", "whose frames were lost with a node"),
            ("decoder_deaths", "deaths", "of decoder processes"),
            ("disk_failures", "accesses", "of `frames.cache_dir` that failed"),
            total=True,
        ),
        *_metrics("frames/", ("bytes", "bytes", "in use now")),
    ],
    "Evaluation during training": [
        *_metrics(
            "eval/",
            ("SET/METRIC", "", "result on a set, at the step whose weights were measured: in `eval.jsonl` and wandb"),
            ("SET/version", "version", "of those weights"),
        ),
        *_metrics(
            "eval/",
            ("measured", "sets", "lines of `eval.jsonl` with results"),
            ("not_measured", "sets", "lines of `eval.jsonl` that say why there are none"),
            total=True,
        ),
    ],
    "Checkpoints and disk": [
        *_metrics(
            "checkpoint/",
            ("step", "step", "of the newest whole checkpoint, 0 without one"),
            ("copy_s", "s", "for which the last one held training up"),
            ("write_s", "s", "that its writing took beside training"),
        ),
        *_metrics("", ("disk/waiting_lines", "lines", "that wait in memory for room on the disk; should be 0")),
        *_metrics(
            "",
            ("checkpoint/failed", "checkpoints", "that could not be written"),
            ("disk/failed_writes", "writes", "of metrics, samples and evaluations that failed; should stay 0"),
            ("disk/failed_ledger_writes", "writes", "of the ledger that failed; should stay 0"),
            ("disk/wandb_failed", "records", "that wandb did not take; `metrics.jsonl` holds them"),
            total=True,
        ),
    ],
}
METRICS: tuple[Metric, ...] = tuple(metric for section in SECTIONS.values() for metric in section)


@cache
def metric_of(name: str) -> Metric | None:
    """The line for a metric's name, the most literal one; None for a name that is not in the table."""
    matching = [metric for metric in METRICS if metric.pattern.fullmatch(name)]
    return max(matching, key=lambda metric: len(PLACEHOLDER.sub("", metric.name)), default=None)


def markdown() -> str:
    """The table as docs/dashboards.md shows it."""
    parts = []
    for title, section in SECTIONS.items():
        rows = [f"| `{m.name}` | {m.unit}{', since the start' if m.total else ''} | {m.meaning} |" for m in section]
        parts.append("\n".join([f"### {title}", "", "| name | unit | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(markdown())
