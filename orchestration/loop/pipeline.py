"""What every prompt passes through, in training and in held-out evaluation alike: frames, prompt, engines, referee."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from evidence import spaces
from evidence.grammar import Completion
from evidence.sampling import selection
from evidence.types import FrameInfo, Prompt, Sample, Trajectory
from orchestration.reporting.stalls import Ends
from orchestration.supervision.referee_pool import Referee
from orchestration.supervision.rollout_pool import RolloutPool
from referee.reward.graph import RewardGraph
from referee.terms.view import GroupView
from rollout.frames.store import FrameStore, Lease
from rollout.prompt import ChatEncoder, build_prompt, printed_times
from rollout.template import PromptTemplate


@dataclass(frozen=True)
class Draw:
    """How completions are drawn: `n` of them, at `temperature` (0 is greedy), of at most `max_tokens` tokens."""

    n: int
    temperature: float
    max_tokens: int


@dataclass
class Pipeline:
    """The parts that a group passes through. `max_tokens`: at which completions are cut, for rewards that depend on it.
    `counts`: events on the way, for the metrics. `tokens`: those drawn so far, by what became of them. `group_ends`:
    when groups ended."""

    rollout_pool: RolloutPool
    referee: Referee
    store: FrameStore
    encoder: ChatEncoder
    template: PromptTemplate
    reward: RewardGraph
    max_tokens: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    group_ends: Ends = field(default_factory=Ends)

    async def prepare(self, sample: Sample) -> tuple[Lease, Prompt]:
        """The frames of a sample, which the caller releases, and its prompt. Raises UnreadableMedia."""
        lease = await self.store.lease(sample.media_path, selection(sample, self.store.contract))
        try:
            return lease, build_prompt(self.encoder, self.template, sample, lease.info)
        except BaseException:
            lease.release()
            raise

    def prefetch(self, samples: Iterable[Sample]) -> None:
        """Decode ahead the frames of samples that will be prepared soon, in their order."""
        self.store.prefetch((s.media_path, selection(s, self.store.contract)) for s in samples)

    def parse(self, text: str, info: FrameInfo) -> Completion:
        """A completion about the frames `info`, with the boxes of its claims in pixels of these frames, and the frames'
        own times where the claims have those that the prompt printed."""
        return spaces.read(text, info, self.template.box_space, printed_times(self.template, info, self.encoder))

    def view(self, sample: Sample, info: FrameInfo, trajectories: tuple[Trajectory, ...], progress: float) -> GroupView:
        """What the reward sees of trajectories about a sample, before the referee is asked. `progress`: of training,
        in [0, 1]."""
        return GroupView(
            sample=sample,
            texts=tuple(t.text for t in trajectories),
            completions=tuple(self.parse(t.text, info) for t in trajectories),
            frames=info,
            box_space=self.template.box_space,
            printed=printed_times(self.template, info, self.encoder),
            lengths=tuple(len(t.token_ids) for t in trajectories),
            max_tokens=self.max_tokens,
            progress=progress,
        )
