"""A small real destination: a Storage SCP that answers with the statuses it is told to give."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from types import TracebackType

from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, KeyObjectSelectionDocumentStorage
from pynetdicom import AE, DEFAULT_TRANSFER_SYNTAXES, evt
from pynetdicom.sop_class import CTImageStorage, Verification

from tfkt_node.settings import Delivery, Peer

SR, KOS, CT = str(ComprehensiveSRStorage), str(KeyObjectSelectionDocumentStorage), CTImageStorage

QUICK = Delivery(connection_timeout_s=2, response_timeout_s=1, first_retry_s=1, longest_retry_s=60)
"""Timeouts that a test can wait for."""

NO_ANSWER = -1
"""Instead of a status: abort the association."""

SILENCE = -2
"""Instead of a status: keep the association open and say nothing until the end of the test."""


class Destination:
    """Listens on a free loopback port; `received` holds the data sets as they came in.

    callers: implementation class UID and version name of each association. syntaxes: transfer
    syntaxes that it takes.
    """

    def __init__(
        self,
        classes: Iterable[str] = (SR, KOS),
        statuses: Iterable[int | Dataset] = (),
        ae_title: str = "PACS",
        syntaxes: Sequence[str] = DEFAULT_TRANSFER_SYNTAXES,
    ) -> None:
        self.received: list[bytes] = []
        self.callers: list[tuple[str, str]] = []
        self._statuses = list(statuses)
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._ae = AE(ae_title=ae_title)
        self._ae.require_called_aet = True
        for sop_class in (*classes, Verification):
            self._ae.add_supported_context(sop_class, list(syntaxes))
        self._server = self._ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._count)],
        )
        self.peer = Peer(
            name="pacs",
            ae_title=ae_title,
            host="127.0.0.1",
            port=self._server.server_address[1],
            deliver=True,
        )

    @property
    def associations(self) -> int:
        return len(self.callers)

    def _count(self, event: evt.Event) -> None:
        caller = event.assoc.requestor
        with self._lock:
            self.callers.append(
                (str(caller.implementation_class_uid), str(caller.implementation_version_name))
            )

    def _store(self, event: evt.Event) -> int | Dataset:
        with self._lock:
            self.received.append(event.request.DataSet.getvalue())
            status = self._statuses.pop(0) if self._statuses else 0x0000
        if status == NO_ANSWER:
            event.assoc.abort()
            return 0x0000
        if status == SILENCE:
            self._ending.wait()
            return 0x0000
        return status

    def __enter__(self) -> Destination:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._server.shutdown()
