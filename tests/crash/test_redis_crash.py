"""A worker whose Redis does not answer: real processes, a real server that is stalled by a signal, invariant I10."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.site import Site, site, wait_for
from tests.support.redis_server import RedisServer


@pytest.mark.thorough
@pytest.mark.parametrize("timeout", [5, 60])
def test_a_claim_that_is_not_answered_does_not_keep_the_worker(tmp_path: Path, timeout: int) -> None:
    """The server stalls in the middle of a claim, for whose reply the connection would wait for too long."""
    with RedisServer() as server:
        url = server.url(query=f"?socket_timeout={timeout}")
        with site(tmp_path, url=url, shutdown_timeout=1) as place:
            worker = place.worker(CHAOS_CLAIMS=1)
            try:
                wait_for(
                    "the server is stalled between two claims", lambda: stalled_after_an_answer(place, server)
                )
                claims = len(place.lines("claims"))
                wait_for("a claim is under way", lambda: len(place.lines("claims")) > claims)
                began = time.monotonic()
                worker.terminate()
                assert worker.wait(90) == 0
                assert time.monotonic() - began < 1 + 5  # I10
                assert len(place.lines("claims")) == claims + 1
            finally:
                server.resume()


def stalled_after_an_answer(place: Site, server: RedisServer) -> bool:
    """Stalls the server; whether what is claimed next is not answered."""
    server.pause()
    if (claims := place.lines("claims")) and claims[-1][0] == "end":
        return True
    server.resume()
    return False
