"""What a question may be, wherever it comes from. Pure."""

from __future__ import annotations

from evidence.errors import BadInput

MOST_QUESTION = 32_768  # characters: far more than a context holds beside a video, and tokenized in a moment


def require_question(question: str) -> None:
    """Raises BadInput for text that is no question."""
    if not question.strip():
        raise BadInput("the question is empty; ask something about the video")
    if len(question) > MOST_QUESTION:
        raise BadInput(f"the question has {len(question):,} characters; at most {MOST_QUESTION:,} can be asked")
    try:
        question.encode()
    except UnicodeEncodeError:
        raise BadInput("the question contains half of a character (a lone surrogate); write it as UTF-8") from None
