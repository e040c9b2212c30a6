from dataclasses import fields, replace

import pytest

from referee.cache import VerdictCache, VerdictKey

KEY = VerdictKey("digest", "1", "relevance", "expected", ("text",), ("frames", 0, (0, 0, 5, 5), (56, 56), 0.25))
OTHER = {"text": ("text", "more"), "pixels": ("frames", 1, (0, 0, 5, 5), (56, 56), 0.25)}


@pytest.mark.parametrize("name", [field.name for field in fields(VerdictKey)])
def test_any_difference_is_another_question(name: str):
    cache = VerdictCache(4)
    cache.put(KEY, 0.0)
    assert cache.get(KEY) == 0.0  # a verdict of 0 is a verdict
    assert cache.get(replace(KEY, **{name: OTHER.get(name, "other")})) is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_least_recently_used_goes_first():
    cache = VerdictCache(2)
    a, b, c = (replace(KEY, wording=name) for name in "abc")
    cache.put(a, 0.1)
    cache.put(b, 0.2)
    cache.get(a)
    cache.put(c, 0.3)
    assert len(cache) == 2
    assert (cache.get(a), cache.get(b), cache.get(c)) == (0.1, None, 0.3)
