"""What the names of seeds stand for."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from actorkit.cluster.seeds import resolve
from actorkit.errors import ConfigurationError


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, str]) -> None:
    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("seed", ["127.0.0.1:9080", "10.1.2.3:1", "[::1]:9080"])
async def test_an_address_stands_for_itself(seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    assert list(await resolve(seed)) == [seed]


async def test_a_name_of_one_host_stays_as_it_is_although_it_has_addresses_of_both_families(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers(monkeypatch, (socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.1"))
    assert list(await resolve("localhost:9080")) == ["localhost:9080"]


async def test_a_name_of_several_hosts_stands_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, (socket.AF_INET, "10.0.0.2"), (socket.AF_INET6, "fd00::1"), (socket.AF_INET, "10.0.0.1"))
    assert list(await resolve("shop:9080")) == ["10.0.0.1:9080", "10.0.0.2:9080"]
    answers(monkeypatch, (socket.AF_INET6, "fd00::2"), (socket.AF_INET6, "fd00::1"))
    assert list(await resolve("shop:9080")) == ["[fd00::1]:9080", "[fd00::2]:9080"]


async def test_an_unknown_name_is_the_callers_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    with pytest.raises(OSError, match="not known"):
        await resolve("nowhere:9080")


@pytest.mark.parametrize("seed", ["n1", ":9080", "n1:", "n1:http", ""])
async def test_what_is_no_address_is_refused(seed: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        await resolve(seed)


async def test_a_host_name_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no valid host name"):
        await resolve(f"{'a' * 64}.example:9080")


async def test_the_systems_resolver_is_asked() -> None:
    assert list(await resolve("localhost:9080")) == ["localhost:9080"]
