"""Judges of free answers: an OpenAI-compatible endpoint, or a model folder in an engine of its own.

Guarantees: greedy; a reply is kept on disk under the judge that gave it, and the same question is asked once; a
question without a reply is counted, and no reply is made up. The key of an endpoint is sent with requests and written
nowhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from evidence.digests import model_digest
from evidence.errors import BadInput
from evidence.lines import AppendedLines, records
from evidence.plain import dumps
from orchestration.commands.ask_many import all_of
from orchestration.commands.eval_record import REPLIES
from orchestration.reporting.awaiting import awaiting
from orchestration.streams import say
from referee.service.backend import Barred, Refused, Unavailable
from referee.service.breaker import Breaker
from referee.service.http_backend import backend_error, first_choice
from referee.service.sources import RefereeSource
from rollout.prompt import without_control
from rollout.text_engine import replies as engine_replies

EXACT, ENGINE = "exact", "vllm:"
MAX_TOKENS = 256  # a reason in a sentence, and an option
AT_ONCE = 32
TIMEOUT_S = 120.0
ATTEMPTS, FIRST_PAUSE_S = 4, 1.0  # pauses between attempts are doubled
FAILURES, PAUSE_S = 8, 30.0  # of the breaker: an endpoint that fails this often in a row is asked only now and then
Kept = Callable[[str, str], None]  # takes a prompt and its reply


@dataclass(frozen=True)
class TextJudge:
    """A language model that rates answers. name: in reports. identity: of the model, under which replies are kept.
    ask: passes each reply to `kept` as it comes."""

    name: str
    identity: str
    ask: Callable[[Sequence[str], Kept], object]


def judge_named(options: Mapping[str, str]) -> TextJudge | None:
    """The judge of `--judge`, None for no language model. Raises BadInput."""
    name = options.get("judge", EXACT)
    if name == EXACT:
        return None
    if name.startswith(ENGINE):
        folder = name.removeprefix(ENGINE)
        if not (Path(folder) / "config.json").is_file():
            raise BadInput(f"--judge {name}: {folder} is no model folder; it needs config.json, weights and tokenizer")
        return TextJudge(Path(folder).absolute().name, model_digest(folder), lambda *args: _ask_engine(folder, *args))
    if not name.startswith(("http://", "https://")):
        raise BadInput(f"--judge = {name}: must be {EXACT}, the URL of an endpoint, or {ENGINE}FOLDER")
    try:
        source = RefereeSource(options.get("judge_model", ""), name, options.get("judge_key_env", ""))
    except BadInput as error:
        raise BadInput(f"--judge: {error}") from None
    source.api_key()
    if not source.model:
        raise BadInput(f"--judge {name}: needs --judge-model NAME, under which the endpoint serves the model")
    return TextJudge(source.name, source.name, lambda *args: asyncio.run(_ask_endpoint(source, *args)))


def replies_to(
    prompts: Sequence[str], judge: TextJudge | None, folder: Path
) -> tuple[dict[str, str], dict[str, Any] | None]:
    """The judge's replies by prompt, those without one left out, and the numbers of prompts, of replies that were
    known before, and of failures; None without a judge. Replies are kept in `folder`."""
    if judge is None:
        return {}, None
    wanted = list(dict.fromkeys(prompts))
    path = folder / REPLIES
    known = {
        line["prompt"]: line["reply"]
        for line in (records(path) if path.exists() else ())
        if line["judge"] == judge.identity
    }
    missing = [prompt for prompt in wanted if prompt not in known]
    before = len(wanted) - len(missing)
    if missing:
        with _keeping(path, judge, known) as kept, awaiting(f"the judge ({len(missing)} answers)"):
            judge.ask(missing, kept)
    replies = {prompt: known[prompt] for prompt in wanted if prompt in known}
    failed = len(wanted) - len(replies)
    if failed:
        say(
            f"the judge gave no reply to {failed} of {len(wanted)} answers, which are counted; start again to ask again"
        )
    return replies, {"name": judge.name, "prompts": len(wanted), "cached": before, "failed": failed}


@contextmanager
def _keeping(path: Path, judge: TextJudge, known: dict[str, str]) -> Iterator[Kept]:
    lines = AppendedLines(path)

    def kept(prompt: str, reply: str) -> None:
        known[prompt] = reply
        lines.write([dumps({"judge": judge.identity, "prompt": prompt, "reply": reply}, ensure_ascii=False)])

    try:
        yield kept
    finally:
        lines.close()


def _ask_engine(folder: str, prompts: Sequence[str], kept: Kept) -> None:
    for prompt, reply in zip(prompts, engine_replies(folder, list(map(without_control, prompts)), MAX_TOKENS)):
        if reply is not None:
            kept(prompt, reply)


async def _ask_endpoint(source: RefereeSource, prompts: Sequence[str], kept: Kept) -> None:
    key, breaker = source.api_key(), Breaker(FAILURES, PAUSE_S, time.monotonic)
    # Without an explicit key the client would send the value of OPENAI_API_KEY to the endpoint.
    async with openai.AsyncOpenAI(
        base_url=source.url, api_key=key or "none", max_retries=0, timeout=TIMEOUT_S
    ) as client:

        async def post(prompt: str) -> str:
            try:
                reply = await client.chat.completions.with_raw_response.create(
                    model=source.model,
                    messages=[{"role": "user", "content": without_control(prompt)}],
                    max_tokens=MAX_TOKENS,
                    temperature=0.0,
                )
            except (openai.APIStatusError, openai.APIConnectionError) as error:
                raise backend_error(error, source, key) from None
            try:
                return str(first_choice(reply.http_response.text)["message"]["content"].strip())
            except (KeyError, TypeError, AttributeError):
                raise Unavailable("its reply is not in the OpenAI format: no choices[0].message.content") from None

        async def ask(prompt: str) -> None:
            if (reply := await _persistent(lambda: post(prompt), breaker)) is not None:
                kept(prompt, reply)

        await all_of([ask(prompt) for prompt in prompts], AT_ONCE, lambda result: None)


async def _persistent(post: Callable[[], Awaitable[str]], breaker: Breaker) -> str | None:
    """The reply, or None after ATTEMPTS failures. Raises BadInput if the endpoint rejects the key, the
    model or the address."""
    for attempt in range(ATTEMPTS):
        if not breaker.allows():
            return None
        try:
            reply = await post()
        except Barred as error:
            raise BadInput(f"--judge: {error}; give the endpoint's own URL, model and key") from None
        except Refused:
            return None
        except Unavailable:
            breaker.failed()
            await asyncio.sleep(FIRST_PAUSE_S * 2**attempt)
        else:
            breaker.succeeded()
            return reply
    return None
