"""`ser submit` against a server that speaks Ray's Jobs API, with Ray's own client."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard import Dashboard, dashboard

from orchestration import cli, ray_jobs
from orchestration.ray_jobs import Jobs, entrypoint
from orchestration.sweeps.launching import Refused, Unreachable

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "configs/experiment/quickstart.yaml"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Dashboard]:
    with dashboard() as started:
        yield started


def submit(server: Dashboard, tmp_path: Path, *arguments: str) -> int:
    run_dir = f"run_dir={tmp_path / 'my run'}"
    return cli.main(["submit", str(QUICKSTART), "steps=3", run_dir, "--address", server.url, *arguments])


def test_the_job_runs_ser_train_here_and_its_commands_are_printed(
    server: Dashboard, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # for `ser train`; Ray's client would take it before --address
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert submit(server, tmp_path) == 0
    ((job, submitted),) = server.jobs.items()
    assert re.fullmatch(r"my-run-[0-9a-f]{8}", job)
    assert submitted["runtime_env"] == {}
    assert submitted["entrypoint"].startswith(f"cd {tmp_path} && exec ")
    assert f"-m orchestration train {QUICKSTART} steps=3" in submitted["entrypoint"]
    assert submitted["entrypoint"].endswith(f"'run_dir={tmp_path}/my run'")
    out = capsys.readouterr().out
    assert out.startswith(f"{job}\n")
    for verb in ("logs", "status", "stop"):
        assert f"ray job {verb} {job} --address={server.url}" in out
    assert os.environ["RAY_ADDRESS"] == "127.0.0.1:1"


def test_a_relative_run_dir_counts_from_here(
    server: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["submit", str(QUICKSTART), "run_dir=runs/a", "--address", server.url]) == 0
    (submitted,) = server.jobs.values()
    assert submitted["entrypoint"].endswith(f" run_dir={tmp_path}/runs/a")


@pytest.mark.parametrize(
    ("ending", "code", "line"),
    [
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, 0, ""),
        ({"status": "FAILED", "driver_exit_code": 1}, 1, "failed with exit code 1"),
        ({"status": "FAILED"}, 1, "failed"),
        ({"status": "FAILED", "driver_exit_code": 2}, 2, "bad input, as its output says"),
        ({"status": "FAILED", "driver_exit_code": 75}, 75, "the same command with resume=auto goes on"),
        ({"status": "STOPPED"}, 75, "was interrupted"),
    ],
)
def test_following_prints_the_output_and_ends_as_the_job(
    server: Dashboard,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ending: dict[str, object],
    code: int,
    line: str,
) -> None:
    server.output, server.ending = "step 1/3\n", ending
    assert submit(server, tmp_path, "--follow") == code
    out, err = capsys.readouterr()
    assert "step 1/3\n" in out
    assert line in err
    assert err.count("\n") == (1 if code else 0)


def test_output_that_is_lost_is_one_line(server: Dashboard, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.output = None
    assert submit(server, tmp_path, "--follow") == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"ser: job \S+: its output is lost \(.*503.*\); it may go on: ray job status .*\n", error)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert cli.main(["submit", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ser: ")
    assert err.count("\n") == 1
    return err


def test_a_config_with_a_fault_is_refused_before_anything_is_submitted(
    server: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, str(QUICKSTART), "learner.schedule.lrr=1", "--address", server.url)
    assert "learner.schedule.lr" in error
    assert server.jobs == {}
    assert server.tokens == []


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8265", "ray://127.0.0.1:1", "auto", "http://", "http://a:b", "ftp://x", "", "http://[::1"]
)
def test_an_address_that_is_no_url_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, str(QUICKSTART), f"--address={address}")
    assert f"--address {address}: must be the URL of a Ray dashboard, as http://127.0.0.1:8265" in error


@pytest.mark.parametrize(
    "address", ["http://user:secret@{}", "http://secret@{}", "http://user:sec/ret@{}", "user:secret@{}"]
)
def test_an_address_with_a_password_is_refused_and_not_shown(
    server: Dashboard, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, str(QUICKSTART), "--address", address.format(server.url.removeprefix("http://")))
    assert "--address: must not contain a user name or a password; set RAY_AUTH_MODE=token" in error
    assert "sec" not in error
    assert server.tokens == []


@pytest.mark.parametrize("variable", [False, True])
def test_a_refused_connection_is_one_line(
    variable: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        if variable:
            monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)
        error = refused(capsys, str(QUICKSTART), *([] if variable else ["--address", address]))
    source = "RAY_API_SERVER_ADDRESS" if variable else "--address"
    assert f"{source} {address}: cannot be reached (Connection refused)" in error


def test_a_host_without_an_address_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be reached" in refused(capsys, str(QUICKSTART), "--address", "http://no-such-host.invalid:8265")


@pytest.mark.parametrize(
    ("status", "body", "part"),
    [
        (401, "Unauthorized: Missing authentication token", "Missing authentication token"),
        (403, "Forbidden: Invalid authentication token", "Invalid authentication token"),
    ],
)
def test_a_missing_or_wrong_token_is_one_line(
    server: Dashboard, capsys: pytest.CaptureFixture[str], status: int, body: str, part: str
) -> None:
    server.status, server.body = status, body
    error = refused(capsys, str(QUICKSTART), "--address", server.url)
    assert part in error
    assert "set RAY_AUTH_MODE=token, with the head's token in ~/.ray/auth_token or RAY_AUTH_TOKEN" in error


@pytest.mark.parametrize(
    ("status", "body"), [(200, "<html>hello</html>"), (404, "not here"), (500, "trouble"), (200, "{}"), (200, "[]")]
)
def test_a_server_that_is_no_dashboard_is_one_line(
    server: Dashboard, capsys: pytest.CaptureFixture[str], status: int, body: str
) -> None:
    server.status, server.body = status, body
    assert "give the address of a Ray dashboard" in refused(capsys, str(QUICKSTART), "--address", server.url)


def test_a_server_that_does_not_answer_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_jobs, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refused(capsys, str(QUICKSTART), "--address", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "Read timed out" in error


def test_a_job_is_submitted_once_and_a_lost_cluster_is_unreachable(server: Dashboard) -> None:
    jobs = Jobs(server.url)
    assert jobs.info("a") is None
    jobs.submit("a", "true")
    jobs.submit("a", "false")
    assert server.jobs["a"]["entrypoint"] == "true"
    server.status, server.body = 500, "Trouble\nNo available agent to submit job"
    with pytest.raises(Unreachable, match=r"^[^\n]*No available agent to submit job$"):
        jobs.info("a")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, "Traceback (most recent call last):\nValueError: no such queue\n", Refused),
        (500, "Traceback (most recent call last):\nRuntimeError: no such queue\n", Refused),
        (500, "No available agent to submit job, please try again later.", Unreachable),
        (502, "Bad Gateway", Unreachable),
        (503, "no upstream", Unreachable),
        (504, "Gateway Timeout", Unreachable),
    ],
)
def test_a_job_that_is_not_taken_is_told_from_a_cluster_that_is_away(
    server: Dashboard, status: int, body: str, error: type[Exception]
) -> None:
    jobs = Jobs(server.url)
    server.refusal = status, body.replace("such", "s\x1buch")
    last = body.replace("such", "s\ufffduch").splitlines()[-1].rstrip(".")
    with pytest.raises(error, match=rf"^{server.url}: [^\n]*status {status}: {last}\)?$"):
        jobs.submit("a", "true")
    server.refusal = None
    jobs.submit("a", "true")


def test_a_job_that_was_taken_before_an_error_is_not_refused(server: Dashboard) -> None:
    server.refusal, server.takes = (500, "too late"), True
    Jobs(server.url).submit("a", "true")
    assert list(server.jobs) == ["a"]


def test_a_fault_of_this_program_is_not_taken_for_a_lost_cluster(
    server: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(server.url)
    monkeypatch.setattr(jobs._client, "get_job_info", lambda job: {}["missing"])
    with pytest.raises(KeyError):
        jobs.info("a")


def test_the_entrypoint_runs_here_with_its_variables_and_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    monkeypatch.chdir(folder)
    text = entrypoint(["bash", "-c", 'echo "$GROUP" $PPID; pwd; exit 75'], {"GROUP": "a b;c"})
    done = subprocess.run(text, shell=True, cwd="/", capture_output=True, text=True)
    assert done.returncode == 75
    assert done.stdout == f"a b;c {os.getpid()}\n{folder}\n", "no shell stands between the job and the command"
