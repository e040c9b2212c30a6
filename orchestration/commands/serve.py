"""`ser serve`: answers with evidence over HTTP, in the format of OpenAI's interface (docs/answering.md).

Guarantees: bad input is reported, and the address taken, before an engine starts; SIGTERM and Ctrl-C end the command
with exit code 0, and the engines with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

from evidence.errors import BadInput
from orchestration.answering.answerer import check_answering, gpus, running_answerer
from orchestration.answering.settings import AnswerConfig, load
from orchestration.serving.app import Service, make_app
from orchestration.serving.server import Address, Stop
from orchestration.streams import say
from orchestration.supervision.cluster import start_ray
from rollout.prompt import ChatEncoder


def main(address: Address, root: Path, config_file: Path | None, overrides: Sequence[str]) -> None:
    """Serve until a signal arrives. Raises BadInput."""
    token = address.token()
    if not root.is_dir():
        raise BadInput(f"--root {root}: no such folder; name the folder with the videos")
    config, encoder = check_answering(load(config_file, overrides))
    with contextlib.closing(address.bind()) as bound:
        asyncio.run(_serve(config, encoder, root.resolve(), token, bound))
    say("ser: the server has ended")


async def _serve(config: AnswerConfig, encoder: ChatEncoder, root: Path, token: str, bound: socket.socket) -> None:
    with Stop() as stop, start_ray(config.cluster.object_store_gib, gpus(config)):
        stop.listen()  # Ray has handlers of its own
        async with running_answerer(config, encoder) as answerer:
            name = Path(config.model).resolve().name
            await stop.serve(make_app(Service(answerer, name, root, token)), bound, name)
