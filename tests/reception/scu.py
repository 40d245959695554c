"""The calling side of associations in tests."""

from __future__ import annotations

from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context, evt

from tfkt_node.reception.line import Line
from tfkt_node.records import CT_IMAGE


def associate(
    port: int, contexts: Any = None, calling: str = "SCANNER", called: str = "TFKT_NODE"
) -> Any:
    """Open an association to a reception on loopback, for CT unless told."""
    ae = AE(calling)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    return ae.associate(
        "127.0.0.1",
        port,
        contexts=contexts or [build_context(CT_IMAGE, ExplicitVRLittleEndian)],
        ae_title=called,
        evt_handlers=[(evt.EVT_CONN_OPEN, _make_closable)],
    )


def _make_closable(event: Any) -> None:
    """Let the library close the socket also when the node was the first to hang up."""
    transport = event.assoc.dul.socket
    transport.socket = Line(transport.socket.detach(), "127.0.0.1", pdu_timeout_s=30)
