"""TLS between nodes (a shell: Python's ssl reads files)."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec

__all__ = ["TlsContexts", "mutual_tls"]


class TlsContexts(msgspec.Struct, frozen=True):
    """One context for each role."""

    server: ssl.SSLContext
    client: ssl.SSLContext

    @property
    def mutual(self) -> bool:
        """Whether both sides must show a certificate."""
        return self.server.verify_mode is self.client.verify_mode is ssl.CERT_REQUIRED


def mutual_tls(*, certificate: Path | str, key: Path | str, authority: Path | str) -> TlsContexts:
    """Both sides show a certificate that this authority has signed; TLS 1.3 only.

    The authority must sign nothing but nodes of this cluster: whoever has a certificate of it is let in. A node's
    certificate names the hosts of its address, since that is checked too. Raises ``OSError`` or ``ssl.SSLError`` where
    a file cannot be used.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return TlsContexts(server, client)
