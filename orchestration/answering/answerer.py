"""A running policy, and a referee if there is one, that answer questions about videos with evidence.

    config, encoder = check_answering(config)
    with start_ray(…):
        async with running_answerer(config, encoder) as answerer:
            with await answerer.lease(asked) as lease:
                answered = await answerer.answer(asked, lease)

Guarantees: prompts, frames and verdicts are those of training with the same config; equal questions with equal seeds
give equal answers, as far as the engine's do; what a cancelled question had asked for is dropped by the engine; a
missing verdict stays missing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
import ray

from evaluation.election.candidates import Candidate
from evaluation.election.drawing import hold_election
from evaluation.election.election import Checked, Method
from evaluation.election.open_o3 import OpenO3
from evaluation.election.perturbations import View, views
from evidence.types import FrameInfo, Prompt, Sample, Trajectory
from orchestration.answering.answers import (
    Answered,
    Outcome,
    Reply,
    cited_places,
    count_votes,
    gather_evidence,
)
from orchestration.answering.settings import AnswerConfig, method_of
from orchestration.preflight import require_referee
from orchestration.reporting.awaiting import awaiting
from orchestration.supervision.engines import referee_engine
from orchestration.supervision.referee_pool import Referee, make_referee
from orchestration.supervision.standalone_policy import StandalonePolicy, TooLong, check_policy, running_policy
from referee.reward.ser import NO_VERDICT, claims_to_verify, score
from rollout.frames.store import Lease
from rollout.prompt import ChatEncoder, build_prompt

CROP_SCALE = 2  # relevance of 1 on the scale of Open-o3-Video's crop scores


@dataclass(frozen=True)
class Asked:
    """A question about a file. `method`: of an election; None for `n` completions at `temperature`. `max_tokens`: None
    for the config's, as far as the prompt leaves room. `fps`: the frame rate of a folder of frames."""

    question: str
    path: str
    n: int = 1
    temperature: float = 0.0
    max_tokens: int | None = None
    seed: int = 0
    method: str | None = None
    fps: float | None = None

    @property
    def sample(self) -> Sample:
        return Sample(id="", source="", task="", question=self.question, answer="", video_path=self.path, fps=self.fps)


@dataclass(frozen=True)
class Shown:
    """What an engine is given for one view of a video. `places`: the number in the video of each frame shown."""

    view: View
    info: FrameInfo
    places: tuple[int, ...]
    prompt: Prompt
    frames: ray.ObjectRef


class Answerer:
    """Use it from one event loop."""

    def __init__(self, config: AnswerConfig, policy: StandalonePolicy, referee: Referee | None):
        """`config`: checked."""
        self.config, self.policy, self.referee = config, policy, referee
        self._views = views(config.election.perturb)

    async def lease(self, asked: Asked) -> Lease:
        """Lease the frames of the file; use the lease in a `with`. Raises UnreadableMedia."""
        return await self.policy.lease(asked.sample)

    async def answer(self, asked: Asked, lease: Lease) -> Answered:
        """Raises BadInput for an election that cannot be held, TooLong, GenerationFailed, and RolloutPoolLost or
        RefereeLost if nothing is left to answer."""
        if asked.method is not None:
            return await self._elected(asked, lease, method_of(self.config, asked.method))
        shown = await self._shown(asked, lease, View())
        trajectories = await self._generate(asked, shown, asked.n, asked.temperature, asked.seed)
        replies = [self._reply(trajectory, shown, asked.temperature, lease) for trajectory in trajectories]
        return Answered(
            asked.question, lease.info, tuple([await self._judged(reply, asked, lease) for reply in replies])
        )

    async def _elected(self, asked: Asked, lease: Lease, method: Method) -> Answered:
        temperatures = self.config.election.temperatures_of(method)
        total = len(lease.info.times)
        shown_as: dict[View, asyncio.Future[Shown]] = {}
        replies: dict[int, Reply] = {}

        async def draw(number: int, frames: int | None) -> Candidate:
            view = self._views[number // len(temperatures) % len(self._views)]  # each at all temperatures
            view = view if frames is None else replace(view, frames=frames)
            if view not in shown_as:
                shown_as[view] = asyncio.ensure_future(self._shown(asked, lease, view))
            shown, temperature = await asyncio.shield(shown_as[view]), temperatures[number % len(temperatures)]
            (trajectory,) = await self._generate(asked, shown, 1, temperature, _seed(asked.seed, number))
            replies[number] = self._reply(trajectory, shown, temperature, lease)
            if isinstance(method, OpenO3):
                replies[number] = await self._judged(replies[number], asked, lease)
            return _candidate(replies[number], trajectory, shown, total)

        held = await hold_election(method, draw, self.config.election.at_once, total)
        elected, sufficiency = held.election.end(), None

        async def judge_winner() -> float | None:
            """The check of the winner's evidence."""
            if elected.winner is None:
                return None
            replies[elected.winner] = await self._judged(replies[elected.winner], asked, lease)
            return replies[elected.winner].sufficiency

        sufficiency = await judge_winner()
        if isinstance(method, Checked):
            elected = held.election.check(sufficiency)
            await judge_winner()
        counted = tuple(replies[number] for number in range(len(held.candidates)))
        outcome = Outcome(
            method=method.NAME,
            elected=elected,
            replies=counted,
            votes=count_votes(held.candidates, elected),
            begun=held.begun,
            sufficiency=sufficiency if isinstance(method, Checked) else None,
        )
        return Answered(asked.question, lease.info, (counted[elected.winner or 0],), outcome)

    async def _shown(self, asked: Asked, lease: Lease, view: View) -> Shown:
        """Raises TooLong."""
        info, places = view.seen(lease.info), view.places(len(lease.info.times))
        prompt = build_prompt(self.policy.encoder, self.config.template, asked.sample, info)
        length, most = len(prompt.token_ids), self.config.engine.max_model_len
        if length + (asked.max_tokens or 1) > most:
            completion = "" if asked.max_tokens is None else f" and its completion may have {asked.max_tokens}"
            raise TooLong(f"the prompt has {length} tokens{completion}; the context (engine.max_model_len) has {most}")
        frames = lease.frames
        if replace(view, name=View.name) != View():
            frames = ray.put(await asyncio.to_thread(view.pixels, await frames))
        return Shown(view, info, places, prompt, frames)

    async def _generate(
        self, asked: Asked, shown: Shown, n: int, temperature: float, seed: int
    ) -> tuple[Trajectory, ...]:
        return await self.policy.generate(shown.prompt, shown.frames, n, temperature, asked.max_tokens, seed)

    def _reply(self, trajectory: Trajectory, shown: Shown, temperature: float, lease: Lease) -> Reply:
        """The completion, not judged, with boxes in the whole frames."""
        completion = self.policy.parse(trajectory.text, shown.info)
        whole = (
            claim if claim.box is None else replace(claim, box=shown.view.in_whole(claim.box, lease.info.size))
            for claim in completion.claims
        )
        completion = replace(completion, claims=tuple(whole))
        cited, not_shown = cited_places(trajectory.text, shown.places)
        return Reply(
            text=trajectory.text,
            completion=completion,
            evidence=gather_evidence(completion, (), lease.info.times),
            cited=cited,
            not_shown=not_shown,
            temperature=temperature,
            view=shown.view,
            shown=len(lease.info.times),
            prompt_tokens=len(shown.prompt.token_ids),
            tokens=len(trajectory.token_ids),
            finish_reason=trajectory.finish_reason,
        )

    async def _judged(self, reply: Reply, asked: Asked, lease: Lease) -> Reply:
        """The completion with the referee's verdicts, if there is a referee."""
        if self.referee is None or reply.is_judged:
            return reply
        info, config = lease.info, self.config.evidence
        claims = claims_to_verify(reply.completion, info, config)
        verdicts = await self.referee.verify(asked.question, claims, info, lease.frames) if claims else []
        scores, _ = score(reply.completion, verdicts, info, config)
        return replace(reply, evidence=gather_evidence(reply.completion, scores, info.times))


def _seed(seed: int, number: int) -> int:
    """The seed of a candidate."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint32)[0])


def _candidate(reply: Reply, trajectory: Trajectory, shown: Shown, total: int) -> Candidate:
    """The candidate as elections read it. Crop scores are given for open_o3 alone, whose candidates are judged."""
    scores = [evidence.score for evidence in reply.evidence if evidence.score is not None]
    return Candidate(
        text=shown.view.placed(reply.text, total),
        frames=len(shown.places),
        crop_scores=tuple(
            None if score.verdict.flag == NO_VERDICT else round(CROP_SCALE * score.verdict.relevance)
            for score in scores
        ),
        logprobs=tuple(map(float, trajectory.logprobs)),
    )


def check_answering(config: AnswerConfig) -> tuple[AnswerConfig, ChatEncoder]:
    """Check everything that can be checked before anything starts. Returns the config, resolved, and the policy's
    encoder. Raises BadInput."""
    checked, encoder = check_policy(config)
    config = cast(AnswerConfig, checked)
    if config.judge is not None:
        require_referee(config.judge, config.verification)
    return config, encoder


def gpus(config: AnswerConfig) -> float:
    """The number of GPUs that the engines need."""
    referees = config.judge.replicas if config.judge is not None and not config.judge.url else 0
    return config.cluster.gpus_per_engine * (config.cluster.rollout_engines + referees)


@contextlib.asynccontextmanager
async def running_answerer(config: AnswerConfig, encoder: ChatEncoder) -> AsyncIterator[Answerer]:
    """Start the policy and the referee of a checked config in the Ray cluster of this process. At the end, all other
    tasks of the event loop are cancelled."""
    cluster, referee = config.cluster, None
    async with running_policy(config, encoder, config.contract.frames) as policy:
        if config.judge is not None:
            engine = partial(referee_engine, config.engine, cluster)
            sources, gpus_each = [config.judge], cluster.gpus_per_engine
            referee = make_referee(sources, config.referee, config.verification, engine, gpus_each, config.limits)
            with awaiting("referee"):
                await referee.start()
        yield Answerer(config, policy, referee)
