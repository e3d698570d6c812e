"""Redis over TLS, with certificates that the test makes: who is trusted, and by whom."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import trustme

from qtasks.errors import FatalError, TransientError
from tests.components.test_redis_deployments import CLUSTERED, LOGIN, Sentinel, form_cluster, smoke
from tests.support.redis_pair import opened
from tests.support.redis_server import PASSWORD, USER, RedisServer, flavours, free_port
from tests.support.redis_servers import servers
from tests.support.tcp_proxy import TcpProxy


class Certificates:
    """An authority, a certificate for the server and one for a client, as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca, self.client = folder / "ca.pem", folder / "client.pem"
        self.server, self.server_key = folder / "server.pem", folder / "server.key"
        self.authority.cert_pem.write_to_path(self.ca)
        self.authority.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(self.client)
        issued = self.authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(self.server_key)
        issued.cert_chain_pems[0].write_to_path(self.server)

    def context(self) -> ssl.SSLContext:
        """The server's side: it asks clients for a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.server_key)
        context.load_verify_locations(self.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


@contextlib.asynccontextmanager
async def serving(program: str, certificates: Certificates) -> AsyncIterator[int]:
    """The TLS port of a server. The server of the wheel is built without TLS: a TLS end stands before it."""
    if program == flavours()[0]:
        with RedisServer(program, appendonly="yes") as server:
            server.restrict()
            async with TcpProxy(server.port, tls=certificates.context()) as front:
                yield front.port
        return
    port = free_port()
    tls = {
        "tls_port": str(port), "tls_cert_file": str(certificates.server), "tls_key_file": str(certificates.server_key),
        "tls_ca_cert_file": str(certificates.ca),
    }  # fmt: skip
    with RedisServer(program, appendonly="yes", **tls) as server:
        server.restrict()
        yield port


@pytest.fixture(params=servers())
async def port(request, certificates) -> AsyncIterator[int]:
    async with serving(request.param, certificates) as number:
        yield number


def url(port: int, certificates: Certificates, **options: object) -> str:
    named = {
        "ssl_ca_certs": certificates.ca, "ssl_certfile": certificates.client,
        "ssl_keyfile": certificates.client, "socket_timeout": 2, **options,
    }  # fmt: skip
    query = "&".join(f"{name}={value}" for name, value in named.items() if value is not None)
    return f"rediss://{USER}:{PASSWORD.replace(' ', '%20')}@localhost:{port}/3?{query}"


async def test_everything_goes_over_tls(port, certificates):
    """The commands, the notifications and the lease keeper, as a user with the minimum of rights."""
    async with opened(url(port, certificates, ssl_min_version="1.3")) as trio:
        await smoke(trio)


async def test_a_server_that_is_not_trusted_is_fatal(port, certificates, tmp_path):
    other = Certificates(tmp_path)
    with pytest.raises(FatalError, match="ssl_ca_certs") as caught:
        async with opened(url(port, certificates, ssl_ca_certs=other.ca)):
            pass
    assert PASSWORD not in str(caught.value)


async def test_a_name_that_does_not_match_is_fatal(port, certificates):
    there = url(port, certificates).replace("localhost", "127.0.0.1")
    with pytest.raises(FatalError, match="ssl_check_hostname"):
        async with opened(there):
            pass
    async with opened(f"{there}&ssl_check_hostname=no") as trio:
        await smoke(trio)


async def test_a_client_without_a_certificate_is_turned_away(port, certificates):
    with pytest.raises(TransientError):
        async with opened(url(port, certificates, ssl_certfile=None, ssl_keyfile=None)):
            pass


async def test_plain_commands_to_a_tls_port_get_no_answer(port, certificates):
    plain = url(port, certificates).replace("rediss://", "redis://").partition("?")[0]
    with pytest.raises(TransientError):
        async with opened(f"{plain}?socket_timeout=2"):
            pass


class Front(TcpProxy):
    """A TLS end that also takes who speaks plainly: a sentinel of the wheel, which watches the port that it names."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        super().__init__(port)
        self._either, self._socket = tls, socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._socket.setblocking(False)

    async def __aenter__(self) -> Front:
        self._accepting = asyncio.create_task(self._accept())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._accepting.cancel()
        self._socket.close()
        self.cut()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                taken, _ = await loop.sock_accept(self._socket)
                group.create_task(self._begin(loop, taken))

    async def _begin(self, loop: asyncio.AbstractEventLoop, taken: socket.socket) -> None:
        speaks = loop.create_future()
        loop.add_reader(taken, lambda: speaks.done() or speaks.set_result(None))
        await speaks
        loop.remove_reader(taken)
        handshake = taken.recv(1, socket.MSG_PEEK) == b"\x16"
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader, self._serve)
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(
                lambda: protocol, taken, ssl=self._either if handshake else None
            )


def deployed(scheme: str, ports: Iterable[int], master: str, certificates: Certificates) -> str:
    hosts = ",".join(f"localhost:{port}" for port in ports)
    _, _, query = url(0, certificates).partition("?")
    return f"rediss+{scheme}://{LOGIN}{hosts}/{master}?{query}"


async def test_sentinel_over_tls(certificates):
    """The sentinel and the master that it names are both asked over TLS, and their names are checked."""
    with RedisServer() as master:
        master.restrict()
        async with Front(master.port, certificates.context()) as front:
            with Sentinel(front, host="localhost") as sentinel:
                async with (
                    TcpProxy(sentinel.port, tls=certificates.context()) as asked,
                    opened(deployed("sentinel", [asked.port], "main", certificates)) as trio,
                ):
                    assert trio.link.address == ("localhost", front.port)
                    await smoke(trio)


async def test_cluster_over_tls(certificates, server):
    """The seed and the node that has the slot are both asked over TLS, and their names are checked."""
    if server.version < (7,):
        pytest.skip("the nodes of this server announce addresses, and no names")
    async with contextlib.AsyncExitStack() as stack:
        nodes, fronts = [RedisServer(**CLUSTERED) for _ in range(3)], []
        for node in nodes:
            front = TcpProxy(node.port, tls=certificates.context())
            fronts.append(await stack.enter_async_context(front))
            node.options |= {
                "cluster_announce_port": str(front.port), "cluster_announce_bus_port": str(node.port + 10_000),
                "cluster_announce_hostname": "localhost", "cluster_preferred_endpoint_type": "hostname",
            }  # fmt: skip
            stack.enter_context(node)
        form_cluster(nodes, meet=(fronts[0].port, nodes[0].port + 10_000))
        places = set()
        for app in ("app", "app-1", "b", "c", "d", "e"):
            async with opened(deployed("cluster", [fronts[0].port], "", certificates), app=app) as trio:
                await smoke(trio)
                places.add(trio.link.address)
        assert len(places) > 1
        assert places <= {("localhost", front.port) for front in fronts}
