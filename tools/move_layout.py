"""Moves the tree to the layout of packages in docs/decisions.md: `git mv`, imports, dotted names, paths, class names.

Run once, from the root of the repository. Nothing but moves and renames: what a moved file says stays as it is.
"""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from pathlib import Path

MODULES = {
    "evidence": {"adapters": "lora_names", "checks": "config_checks"},
    "rollout": {
        "adapters": "lora_merge",
        "positions": "mrope",
        "frames": "frames.decoding",
        "decoders": "frames.decoders",
        "frame_cache": "frames.disk_cache",
        "shapes": "dataset.shapes",
        "dataset.problems": "dataset.video_r1",
        "dataset.grounding": "dataset.time_r1",
    },
    "referee": {
        "claims": "trust.labelled_claims",
        "ser": "reward.ser",
        "recorded": "reward.recorded",
        "reward.options": "reward.binding",
        **{name: f"service.{name}" for name in ("cache", "breaker", "ensemble", "sources", "backend")},
        **{name: f"service.{name}" for name in ("engine_backend", "http_backend")},
        "service": "service.service",
        **{name: f"trust.{name}" for name in ("agreement", "attacks", "calibration", "ratings", "statistics")},
        "temperature": "trust.temperature",
    },
    "learner": {
        **{name: f"model.{name}" for name in ("policy", "vision", "attention", "head", "lora", "patches")},
        **{name: f"model.{name}" for name in ("hugging_face", "tiny")},
        "micro": "packing.step",
        "packing.units": "packing.shared_prefix",
        "zero.whole": "zero.consolidate",
        "zero.group": "zero.process_group",
    },
    "orchestration": {
        **{name: f"loop.{name}" for name in ("admission", "batches", "heldout", "ledger", "parity", "rejections")},
        "groups": "loop.group_maker",
        "learning": "loop.learner_step",
        "skips": "loop.skipped_steps",
        "fleet": "supervision.rollout_pool",
        "referees": "supervision.referee_pool",
        "gang": "supervision.learner_gang",
        **{name: f"supervision.{name}" for name in ("cluster", "engines", "placement", "reference", "weights")},
        "offline": "supervision.standalone_referee",
        **{name: f"reporting.{name}" for name in ("metrics", "samples", "summary", "reward_log")},
        **{name: f"commands.{name}" for name in ("attack", "calibrate", "calibration_output", "data", "doctor")},
        **{name: f"commands.{name}" for name in ("export", "score", "sft", "sft_rows")},
        "judging": "commands.ask_many",
    },
}
# Across packages.
ELSEWHERE = {
    "orchestration.frame_store": "rollout.frames.store",
    "orchestration.budget": "rollout.frames.budget",
    "orchestration.decoder_pool": "rollout.frames.decoder_pool",
    "referee.strata": "benchmarks.strata",
}
MOVED = {f"{p}.{old}": f"{p}.{new}" for p, names in MODULES.items() for old, new in names.items()} | ELSEWHERE

TESTS = {
    "orchestration": {
        **{name: f"loop/{name}" for name in ("admission", "admission_bound", "batches", "group_frames", "ledger")},
        **{name: f"loop/{name}" for name in ("heldout_run", "lost_frames", "parity", "rejections")},
        "learning": "loop/learner_step",
        "skips": "loop/skipped_steps",
        "engines": "supervision/engines",
        "gang_room": "supervision/placement",
        "node_loss": "supervision/node_loss",
        "referees": "supervision/referee_pool",
        **{name: f"reporting/{name}" for name in ("metrics", "reward_log")},
        **{name: f"commands/{name}" for name in ("calibrate", "data", "export", "score", "sft_rows", "sft_run")},
        "frame_store": "../rollout/frames/store",
        "budget": "../rollout/frames/budget",
        "decoder_pool": "../rollout/frames/decoder_pool",
    },
    "rollout": {
        "frames": "frames/decoding",
        "decoders": "frames/decoders",
        "frame_cache": "frames/disk_cache",
        "shapes": "dataset/shapes",
        **{name: f"dataset/{name}" for name in ("dataset", "dataset_check", "dataset_convert", "dataset_formats")},
        "dataset_mix": "dataset/dataset_mix",
    },
    "referee": {
        "claims": "trust/labelled_claims",
        **{name: f"trust/{name}" for name in ("agreement", "attacks", "calibration", "ratings", "statistics")},
        "temperature": "trust/temperature",
        **{name: f"service/{name}" for name in ("breaker", "cache", "http_backend", "service", "service_failures")},
        **{name: f"service/{name}" for name in ("sources", "vllm_serve")},
        "ser": "reward/ser",
        "strata": "../benchmarks/strata",
    },
    "learner": {
        **{name: f"model/{name}" for name in ("attention", "head", "hugging_face", "vision")},
        **{name: f"packing/{name}" for name in ("packing", "packing_plan")},
        **{name: f"losses/{name}" for name in ("loss_values", "divergence")},
    },
}
# Helpers of tests, which their conftest folder puts on the path.
HELPERS = {
    "tests/learner/shown.py": "tests/shown.py",
    "tests/learner/loss_reference.py": "tests/loss_reference.py",
}

IDENTIFIERS = {
    "Fleet": "RolloutPool",
    "FleetLost": "RolloutPoolLost",
    "fleet": "rollout_pool",
    "Gang": "LearnerGang",
    "Skips": "SkippedSteps",
    "Room": "Placement",
    "Maker": "ClaimMaker",
    "House": "Pipeline",
    "house": "pipeline",
}
# In what runs a referee outside training, other things bear these names.
STANDALONE = {
    "House": "StandaloneReferee",
    "house": "standalone",
    "OfflineConfig": "StandaloneConfig",
    "offline": "standalone_referee",
    "LOOKED_AT": "SAMPLES_AT_ONCE",
}
POOLS = {"Pool": "RefereePool"}
TEXT = {".py", ".md", ".yaml", ".toml", ".sh", ""}


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def path_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def test_moves() -> dict[str, str]:
    found = dict(HELPERS)
    for package, names in TESTS.items():
        for old, new in names.items():
            folder, _, name = f"tests/{package}/{new}".rpartition("/")
            parts: list[str] = []
            for part in folder.split("/"):
                parts = parts[:-1] if part == ".." else [*parts, part]
            found[f"tests/{package}/test_{old}.py"] = f"{'/'.join(parts)}/test_{name}.py"
    return found


def move(old: str, new: str) -> None:
    Path(new).parent.mkdir(parents=True, exist_ok=True)
    run("git", "mv", old, new)


def renamed(source: str, names: dict[str, str]) -> str:
    """`source` with the identifiers in `names` renamed; strings and comments stay."""
    lines = source.splitlines(keepends=True)
    found = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.NAME]
    for token in reversed(found):
        if token.string in names:
            (row, start), (_, end) = token.start, token.end
            line = lines[row - 1]
            imported = re.match(r"\s*from [\w.]+ import", line)
            if imported and start < imported.end():  # a module's name, which `rewritten` knows whole
                continue
            lines[row - 1] = line[:start] + names[token.string] + line[end:]
    return "".join(lines)


def rewritten(text: str, tests: dict[str, str]) -> str:
    """`text` with module names and paths as they are after the move."""
    for old, new in tests.items():
        text = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, text)
    done: dict[str, str] = {}

    def keep(new: str) -> str:
        done[f"\0{len(done)}\0"] = new
        return f"\0{len(done) - 1}\0"

    for old in sorted(MOVED, key=len, reverse=True):
        new = MOVED[old]
        package, _, name = old.rpartition(".")
        into, _, last = new.rpartition(".")
        path, to = re.escape(old.replace(".", "/")), new.replace(".", "/")
        if old != "rollout.frames":  # the package's own name now
            text = re.sub(rf"(?<!tests/)(?<!\w){path}(?![\w/])", lambda _, to=to: keep(to), text)
        text = re.sub(rf"(?<!tests/)(?<!\w){path}\.py\b", lambda _, to=to: keep(f"{to}.py"), text)
        # `learner.policy` is a key of configs, too.
        before = r"(?<=from )|(?<=import )" if old in ("learner.policy", "rollout.frames") else r"(?<![\w.])"
        text = re.sub(rf"(?:{before}){re.escape(old)}(?![\w(])", lambda _, new=new: keep(new), text)
        text = re.sub(
            rf"from {re.escape(package)} import {name}\b(?!,)",
            lambda _, into=into, last=last: keep(f"from {into} import {last}"),
            text,
        )
    for mark in reversed(done):
        text = text.replace(mark, done[mark])
    return text


def main() -> None:
    tests = test_moves()
    standalone = "orchestration.offline", "orchestration.judging"
    texts = {}
    for name in run("git", "ls-files").splitlines():
        path = Path(name)
        if path.suffix not in TEXT or path.is_symlink() or name.startswith("tools/"):
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            names = dict(IDENTIFIERS)
            users = any(f"from {module} import" in text for module in standalone)
            if users or name.endswith("orchestration/offline.py"):
                names |= STANDALONE
            pools = re.search(r"from orchestration.referees import.*\bPool", text)
            if pools or name.endswith("orchestration/referees.py"):
                names |= POOLS
            text = renamed(text, names)
        texts[name] = rewritten(text, tests)
    moves = {path_of(old): path_of(new) for old, new in MOVED.items()} | tests
    # A module that becomes a package of its name has to be out of the way first.
    for old in ("rollout/frames.py", "referee/service.py"):
        run("git", "mv", old, f"{old}.moving")
        moves[f"{old}.moving"] = moves.pop(old)
    for old, new in moves.items():
        move(old, new)
    for name, text in texts.items():
        at = moves.get(name, moves.get(f"{name}.moving", name))
        deeper = at.count("/") - name.count("/")
        if deeper:
            text = re.sub(r"(__file__\)\.parents\[)(\d)", lambda m, by=deeper: f"{m[1]}{int(m[2]) + by}", text)
        Path(at).write_text(text, encoding="utf-8")
    for folder in {Path(new).parent for new in moves.values()}:
        if folder.parts[0] not in ("tests", "benchmarks"):
            (folder / "__init__.py").touch()
    run(".venv/bin/ruff", "check", "--select", "I", "--fix", ".")
    run(".venv/bin/ruff", "format", ".")


if __name__ == "__main__":
    main()
