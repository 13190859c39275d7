"""What is demanded before a node listens: a secret worth the name, or loopback only."""

from __future__ import annotations

from ipaddress import ip_address

from actorkit.errors import ConfigurationError
from actorkit.remoting.handshake import SECRET_MIN_BYTES

__all__ = ["checked_secret", "host_and_port", "is_loopback"]


def checked_secret(secret: str | bytes | None) -> bytes:
    """The secret as bytes, empty for none. Raises ``ConfigurationError`` where it is too short to be one."""
    if secret is None:
        return b""
    data = secret.encode() if isinstance(secret, str) else secret
    if len(data) < SECRET_MIN_BYTES:
        raise ConfigurationError(
            f"the secret of remoting has at least {SECRET_MIN_BYTES} bytes, this one has {len(data)}: make one with "
            "python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return data


def host_and_port(address: str) -> tuple[str, int]:
    """Raises ``ConfigurationError`` for what is not ``host:port`` or ``[host]:port``."""
    host, colon, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise ConfigurationError(f"{address!r} is no address of a node: expected host:port")
    return host, int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach it. A name other than ``localhost`` is taken as not."""
    host, _ = host_and_port(address)
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
