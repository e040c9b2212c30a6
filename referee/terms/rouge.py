"""Similarity of two texts: the mean of ROUGE-1, ROUGE-2 and ROUGE-L F1 with stemming, by Google's rouge_score.

Most of the cost is stemming, so stems and the tokens of recent texts are cached: all completions of a group share their
reference. The library is imported at the first score, since importing it takes a second (it imports nltk).
"""

from __future__ import annotations

from functools import cache, lru_cache, partial
from typing import Any

from referee.terms.words import letter_words

WORDS_KEPT = 1 << 16
TEXTS_KEPT = 1 << 10
MOST_WORDS = 1 << 10  # the longest common subsequence takes time in proportion to the product of both lengths


def rouge(answer: str, reference: str) -> float:
    """Similarity in [0, 1]. Texts in ASCII are divided into words by rouge_score, of letters a-z and digits; others by
    their script (referee.terms.words). With a reference of one word it is at most 2/3, since one word has no
    ROUGE-2. Of each text the first MOST_WORDS words are compared."""
    scores = _scorer().score(reference, answer)
    return float(sum(score.fmeasure for score in scores.values()) / len(scores))


@cache
def _scorer() -> Any:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenize import tokenize

    class Stems:
        """The parts of a stemmer and of a tokenizer that rouge_score uses, cached."""

        stem = staticmethod(lru_cache(WORDS_KEPT)(PorterStemmer().stem))
        tokenize = staticmethod(
            lru_cache(TEXTS_KEPT)(lambda text: letter_words(text, partial(tokenize, stemmer=Stems))[:MOST_WORDS])
        )

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Stems)
