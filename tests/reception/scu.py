"""The calling side of associations in tests."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context, evt

from tfkt_node.records import CT_IMAGE


def associate(
    port: int,
    contexts: Any = None,
    calling: str = "SCANNER",
    called: str = "TFKT_NODE",
    ext_neg: Any = None,
) -> Any:
    """Open an association to a reception on loopback, for CT unless told."""
    ae = AE(calling)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    return ae.associate(
        "127.0.0.1",
        port,
        contexts=contexts or [build_context(CT_IMAGE, ExplicitVRLittleEndian)],
        ae_title=called,
        ext_neg=ext_neg,
        evt_handlers=[(evt.EVT_CONN_OPEN, _make_closable)],
    )


class _Closable(socket.socket):
    """A socket that the library closes also when the node was the first to hang up."""

    def shutdown(self, how: int) -> None:
        with contextlib.suppress(OSError):
            super().shutdown(how)


def _make_closable(event: Any) -> None:
    transport = event.assoc.dul.socket
    transport.socket = _Closable(fileno=transport.socket.detach())
    transport.socket.settimeout(30)
    transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
