"""How long the learner waits for a slow referee: short runs of the quickstart with increasing delays of verdicts.

The referee is an endpoint on the loopback that gives every question the same answer after a delay, since its answers
are not measured here. `wait_referee_s` is the part of the learner's wait for a batch in which the batch's last group
was waiting for its verdicts (`time/wait_referee_s` in metrics.jsonl): the median over all steps except the first two,
which fill the slots. Admission allows B = (S + 1) P groups in flight, so up to staleness S the referee works while the
learner trains; the learner waits for the rest, and staleness stays within its bound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from evidence.lines import records

ROOT = Path(__file__).parents[1]
ANSWER = {"logprobs": {"content": [{"token": "2", "logprob": math.log(0.5), "top_logprobs": []}]}}
ANSWER["logprobs"]["content"][0]["top_logprobs"] = [
    {"token": token, "logprob": math.log(p), "bytes": list(token.encode())} for token, p in zip("201", (0.5, 0.3, 0.2))
]
REPLY = {
    "id": "0",
    "object": "chat.completion",
    "created": 0,
    "model": "slow",
    "choices": [
        {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "2"}, **ANSWER},
    ],
}


@contextmanager
def referee(delay_s: float) -> Iterator[str]:
    """The URL of an endpoint that answers every question after `delay_s`, however many are open."""

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(delay_s)
        return web.json_response(REPLY)

    loop, ready, port = asyncio.new_event_loop(), threading.Event(), [0]

    async def serve() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port[0] = runner.addresses[0][1]
        ready.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(serve()), loop.run_forever()), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{port[0]}/v1"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def run(delay_s: float, steps: int, run_dir: Path) -> dict[str, float]:
    shutil.rmtree(run_dir, ignore_errors=True)
    with referee(delay_s) as url:
        source = f"{{model: slow, url: '{url}', version: '1'}}"
        command = [
            *(sys.executable, "-m", "orchestration", "train", str(ROOT / "configs/experiment/quickstart.yaml")),
            *(f"model.referee={source}", f"steps={steps}", "eval.samples=0", "wandb=disabled", f"run_dir={run_dir}"),
            "referee.max_concurrent=1024",
        ]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
    lines = list(records(run_dir / "metrics.jsonl"))[2:]

    def median(key: str) -> float:
        return round(statistics.median(line[key] for line in lines), 2)

    return {
        "delay_s": delay_s,
        "step_s": median("time/step_s"),
        "wait_s": median("time/wait_s"),
        "wait_referee_s": median("time/wait_referee_s"),
        "staleness_max": max(line["staleness/max"] for line in lines),
        "staleness_bound": lines[-1]["staleness/bound"],
        "missing": lines[-1].get("evidence/missing", 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How long the learner waits for a slow referee.")
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 1, 2, 4], help="seconds (default %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps of each run (default %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/slow_referee", help="(default %(default)s)")
    args = parser.parse_args()
    out = args.out.absolute()
    print(json.dumps([run(delay, args.steps, out / f"{delay:g}") for delay in args.delays], indent=1))


if __name__ == "__main__":
    main()
