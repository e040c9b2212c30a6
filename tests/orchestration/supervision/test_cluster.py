"""Joining a cluster that cannot be joined."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from evidence.errors import BadInput
from orchestration.supervision.cluster import start_ray


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379"), "Failed to connect to Ray cluster"),
        (ValueError("Invalid Ray address: 'http://head:8265'.\nTo fix this, …"), "Invalid Ray address: 'http://head"),
        (ray.exceptions.AuthenticationError("no authentication token was found"), "no authentication token was found"),
    ],
    ids=["nobody there or a wrong token", "the dashboard's address", "no token"],
)
def test_a_cluster_that_cannot_be_joined_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def init(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # of the Ray that other tests share
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(BadInput) as refusal, start_ray(0.1):
        pass
    text = str(refusal.value)
    assert text.startswith(f"RAY_ADDRESS = 10.0.0.1:6379: {reason}")
    assert "RAY_AUTH_MODE=token and the head's ~/.ray/auth_token" in text
    assert "\n" not in text
    # The same error of a Ray that this process starts itself has nothing to do with an address.
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(type(error)), start_ray(0.1):
        pass
