"""Jobs on a Ray cluster, through its dashboard: what `ser submit` and `ser sweep` need of Ray's client.

Guarantees: an address, a token or a server that does not fit raises BadInput before anything is submitted; later, a
connection that is lost raises Unreachable, and a job that the cluster does not take Refused; each has one line. An
address that is given wins over the environment, which it does not in Ray. No runtime_env is set: a job runs in the
folder in which it was submitted, with this Python; both must be at the same path on every machine (docs/cluster.md).

Authentication is Ray's own: RAY_AUTH_MODE=token with RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from evidence.errors import BadInput
from evidence.visible import one_line
from orchestration.sweeps.launching import Refused, Unreachable, last_line

DASHBOARD = "http://127.0.0.1:8265"
ADDRESS = "RAY_API_SERVER_ADDRESS"  # read by Ray's own commands, too
MOST = 300  # characters of an error
CONNECT_S, ANSWER_S = 10.0, 60.0
NO_AGENT = "No available agent"  # to submit any job, for some seconds after a head was started
AWAY = {502, 503, 504}  # of a proxy whose server is away
_TOKEN_WARNINGS = "ray._private.authentication.http_token_authentication"


class _Status(Exception):
    """The server's answer is an error with this status."""

    def __init__(self, code: int, text: str):
        super().__init__(f"status {code}: {last_line(text)}")  # of a traceback, the error
        self.code = code


# Errors of Ray's client for a server that cannot be reached or does not answer as it should.
LOST = (requests.RequestException, aiohttp.ClientError, ConnectionError, _Status)


class _Client(JobSubmissionClient):
    """Ray's client, which would wait without end for a server that takes a request and does not answer, and would
    raise RuntimeError for every status."""

    def _do_request(self, *args: Any, **kwargs: Any) -> requests.Response:
        return super()._do_request(*args, timeout=ANSWER_S, **kwargs)

    def _raise_error(self, r: requests.Response) -> NoReturn:
        raise _Status(r.status_code, r.text)


class Jobs:
    """The jobs of the cluster at `address`, that of its dashboard."""

    def __init__(self, address: str | None) -> None:
        """None: RAY_API_SERVER_ADDRESS, or the dashboard of this machine. Raises BadInput."""
        in_environment = os.environ.get(ADDRESS) if address is None else None
        self.address = (in_environment or DASHBOARD) if address is None else address
        source = ADDRESS if in_environment else "--address"
        where = f"{source} {self.address}"
        _require_no_secret(self.address, source)
        _require_server(self.address, where)
        logging.getLogger(_TOKEN_WARNINGS).setLevel(logging.ERROR)  # the refusal below says the same
        try:
            with _without("RAY_ADDRESS", ADDRESS):
                self._client = _Client(self.address)
        except AuthenticationError as error:
            raise BadInput(f"{where}: {_first(error, sentence=True)}; {_token()}") from None
        except (*LOST, RuntimeError, ValueError, KeyError, TypeError) as error:  # of answers of any kind of server
            raise BadInput(f"{where}: {_first(error)}; give the address of a Ray dashboard, as {DASHBOARD}") from None

    def submit(self, job: str, entrypoint: str) -> None:
        """Submit a job under this id, unless there is one. Raises Unreachable and Refused."""
        if self.info(job) is not None:
            return
        with self._answering():
            try:
                self._client.submit_job(entrypoint=entrypoint, submission_id=job)
            except _Status as error:
                if error.code in AWAY or NO_AGENT in str(error):
                    raise
                if self.info(job) is None:  # an error may come after the job has been taken
                    raise Refused(f"{self.address}: refused the job ({_first(error)})") from None

    def info(self, job: str) -> Any | None:
        """Ray's JobDetails; None for a job that the cluster does not know. Raises Unreachable."""
        with self._answering():
            try:
                return self._client.get_job_info(job)
            except _Status as error:
                if error.code == 404:
                    return None
                raise

    async def output(self, job: str) -> AsyncIterator[str]:
        """The job's output, as it comes, until the job ends. Raises Unreachable."""
        with self._answering((*LOST, RuntimeError)):  # RuntimeError: for a connection that ends early
            async for text in self._client.tail_job_logs(job):
                yield text

    def hint(self, verb: str, job: str) -> str:
        """Ray's command for this job: logs, status or stop."""
        return f"ray job {verb} {job} --address={self.address}"

    @contextlib.contextmanager
    def _answering(self, errors: tuple[type[Exception], ...] = LOST) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise Unreachable(f"{self.address}: {_first(error, sentence=True)}; {_token()}") from None
        except errors as error:
            raise Unreachable(f"{self.address}: {_first(error)}") from None


def entrypoint(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """The shell command of a job that runs `arguments` in the current folder. The shell is replaced, so that a signal
    reaches the command, whose exit code is the job's."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
    return " ".join(["cd", shlex.quote(os.getcwd()), "&&", *variables, "exec", shlex.join(arguments)])


def is_over(info: Any) -> bool:
    return info.status.is_terminal()


def was_stopped(info: Any) -> bool:
    return info.status == JobStatus.STOPPED


def _require_no_secret(address: str, source: str) -> None:
    """Raises BadInput for an address with a user name or a password: addresses are printed, and written into files."""
    if "@" in address:
        raise BadInput(f"{source}: must not contain a user name or a password; {_token()}")


def _require_server(address: str, where: str) -> None:
    """Raises BadInput unless something listens at `address`: Ray's client would wait for minutes, or without end."""
    try:
        parts = urlsplit(address)
        default = {"http": 80, "https": 443}[parts.scheme]
        port, host = parts.port or default, parts.hostname or ""
    except (ValueError, KeyError):
        host = ""
    if not host:
        raise BadInput(f"{where}: must be the URL of a Ray dashboard, as {DASHBOARD}")
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise BadInput(
            f"{where}: cannot be reached ({reason}); start a head with `ray start --head`, or give the address of its "
            "dashboard (docs/cluster.md)"
        ) from None


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    """Hide environment variables during the block."""
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _first(error: Exception, sentence: bool = False) -> str:
    """The first line of an error's message, or its first sentence, safe to print."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return one_line((line.partition(". ")[0] if sentence else line).rstrip(". :"), MOST)


def _token() -> str:
    return "set RAY_AUTH_MODE=token, with the head's token in ~/.ray/auth_token or RAY_AUTH_TOKEN (docs/cluster.md)"
