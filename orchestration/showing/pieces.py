"""A prompt as its policy's tokenizer reads it: text, special tokens, and the tokens of frames, counted.

Guarantees: the pieces cover all tokens of the prompt in order, so that their texts, each repeated as often as counted,
are the text of the prompt.
"""

from __future__ import annotations

from itertools import groupby

from evidence.types import Prompt
from orchestration.showing.shown import SPECIAL, TEXT, VISUAL, Piece
from rollout.prompt import ChatEncoder


def pieces_of(encoder: ChatEncoder, prompt: Prompt) -> tuple[Piece, ...]:
    """The pieces of a prompt that `encoder` made."""
    special = set(encoder.tokenizer.get_added_vocab().values())
    visual = encoder.is_visual(prompt.token_ids)

    def kind_of(token: tuple[int, bool]) -> tuple[str, int]:
        """The kind and, where each token is a text of its own, the token."""
        number, is_visual = token
        return (VISUAL, number) if is_visual else (SPECIAL, number) if number in special else (TEXT, -1)

    tokens = zip(prompt.token_ids.tolist(), visual.tolist())
    return tuple(
        _piece(encoder, kind, [number for number, _ in group]) for (kind, _), group in groupby(tokens, kind_of)
    )


def _piece(encoder: ChatEncoder, kind: str, token_ids: list[int]) -> Piece:
    shown = token_ids if kind == TEXT else token_ids[:1]
    text = str(encoder.tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return Piece(kind, text, len(token_ids))
