"""The chat format: every field is honoured, changes nothing, or is refused by name, and no bytes do harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.serving.chat import MOST_CHOICES, ChatRequest, Refused, read_request

VIDEO = {"type": "video_url", "video_url": {"url": "file:///videos/a.mp4"}}
TEXT = {"type": "text", "text": "Where is it?"}


def body(*parts: Any, **fields: Any) -> bytes:
    messages = [{"role": "user", "content": list(parts or (VIDEO, TEXT))}]
    return json.dumps({"model": "m", "messages": messages} | fields).encode()


def refused(content: bytes) -> Refused:
    with pytest.raises(Refused) as error:
        read_request(content, "m")
    assert error.value.body["error"]["message"] == error.value.message
    return error.value


def test_a_request():
    plain = ChatRequest("Where is it?", "file:///videos/a.mp4", 1, None, None, None, None)
    assert read_request(body(), "m") == plain
    full = body(n=3, temperature=0.5, max_tokens=20, max_completion_tokens=10, seed=7)
    assert read_request(full, "m") == ChatRequest("Where is it?", "file:///videos/a.mp4", 3, 0.5, 10, 7, None)
    assert read_request(body(election="rler"), "m").election == "rler"
    image = {"type": "image_url", "image_url": {"url": "a.png", "detail": "high"}}
    several = read_request(body(TEXT, image, {"type": "text", "text": "And why?"}), "m")
    assert (several.question, several.url) == ("Where is it?\nAnd why?", "a.png")


def test_fields_that_change_nothing_and_nulls_are_accepted():
    fields = {"stream": False, "top_p": 1.0, "stop": None, "n": None, "user": "me", "logit_bias": {}, "tools": []}
    assert read_request(body(**fields), "m") == read_request(body(), "m")


BAD_FIELDS = {
    "stream": (True, "stream: only false is supported: answers are sent whole"),
    "top_p": (0.9, "top_p: only 1 is supported"),
    "logprobs": (True, "logprobs: only false is supported"),
    "stop": (["x"], "stop: only [] is supported"),
    "presence_penalty": (1, "presence_penalty: only 0 is supported"),
    "tools": ([{}], "tools: only [] is supported"),
    "frequency": (1, "frequency: is not supported here"),
    "n": (0, "n = 0: must be a whole number of 1 or more, and at most 128"),
    "seed": (-1, "seed = -1: must be a whole number of 0 or more"),
    "max_tokens": (0, "max_tokens = 0: must be a whole number of 1 or more"),
    "max_completion_tokens": (1.5, "max_completion_tokens = 1.5: must be"),
    "temperature": (2.1, "temperature = 2.1: must be a number from 0 to 2"),
    "election": ({"method": "rler"}, "election = {'method': 'rler'}: must be the name of a method"),
}


@pytest.mark.parametrize("key", BAD_FIELDS)
def test_a_field_that_is_not_honoured_is_refused_by_name(key):
    value, part = BAD_FIELDS[key]
    error = refused(body(**{key: value}))
    assert error.message.startswith(part)
    assert (error.status, error.param) == (400, key)


@pytest.mark.parametrize(
    ("key", "value"), [("n", True), ("n", "2"), ("seed", 2**40), ("temperature", True), ("temperature", "0")]
)
def test_values_of_another_kind_are_refused(key, value):
    assert refused(body(**{key: value})).param == key


def test_an_election_draws_at_its_own_temperatures():
    assert refused(body(election="rler", temperature=1)).param == "temperature"
    assert refused(body(election="rler", n=2)).param == "n"


BAD_MESSAGES = {
    "none": None,
    "two": [{"role": "user", "content": [VIDEO, TEXT]}] * 2,
    "system": [{"role": "system", "content": [VIDEO, TEXT]}],
    "text": [{"role": "user", "content": "Where is it?"}],
    "not a message": ["x"],
}


@pytest.mark.parametrize("messages", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_messages_that_are_no_question_about_a_video(messages):
    assert refused(body(messages=messages)).param == "messages"


BAD_PARTS = {
    "no video": [TEXT],
    "two videos": [VIDEO, VIDEO, TEXT],
    "no text": [VIDEO],
    "blank": [VIDEO, {"type": "text", "text": " "}],
    "too long": [VIDEO, {"type": "text", "text": "x" * 40_000}],
    "surrogate": [VIDEO, {"type": "text", "text": "\ud800"}],
    "audio": [VIDEO, TEXT, {"type": "input_audio", "input_audio": {}}],
    "no url": [{"type": "video_url"}, TEXT],
    "url": [{"type": "video_url", "video_url": {"url": 1}}, TEXT],
    "not a part": ["x"],
}


@pytest.mark.parametrize("parts", BAD_PARTS.values(), ids=BAD_PARTS)
def test_parts_that_are_no_question_about_a_video(parts):
    error = refused(body(*parts))
    assert (error.status, error.param) == (400, "messages")
    assert error.message.startswith("messages: ")


def test_another_model_is_not_found():
    error = refused(body(model="gpt"))
    assert (error.status, error.code, error.body["error"]["type"]) == (404, "model_not_found", "not_found_error")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"3", b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}"])
def test_a_body_that_is_not_a_json_object(content):
    assert (refused(content).status, refused(content).code) == (400, "invalid_json")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "url"]), inner),
    max_leaves=6,
)
KEYS = ("messages", "n", "temperature", "max_tokens", "seed", "election", "stream", "top_p", "stop", "x")


@given(st.dictionaries(st.sampled_from(KEYS), VALUES), st.lists(VALUES, max_size=3))
@settings(max_examples=60)
def test_any_request_is_read_or_refused(fields, parts):
    outcome: Any = None
    try:
        outcome = read_request(body(VIDEO, TEXT, *parts, **fields), "m")
    except Refused as error:
        outcome = error
        json.dumps(error.body)
    assert 1 <= outcome.n <= MOST_CHOICES if isinstance(outcome, ChatRequest) else 400 <= outcome.status < 500
