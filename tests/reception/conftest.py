"""A real reception on loopback, and instances to send to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1, generate_uid

from tfkt_node.reception.arrivals import Arrival
from tfkt_node.reception.association import StorageSCP
from tfkt_node.reception.door import Door
from tfkt_node.reception.instances import Spool
from tfkt_node.records import CT_IMAGE, StoredInstance
from tfkt_node.settings import Reception

CALLED = "TFKT_NODE"


@dataclass
class Listening:
    """A reception that listens, its spool, and all it has handed over."""

    scp: StorageSCP
    spool: Spool
    arrivals: list[Arrival] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    @property
    def port(self) -> int:
        return self.scp.port

    @property
    def stored(self) -> list[StoredInstance]:
        return [arrival for arrival in self.arrivals if isinstance(arrival, StoredInstance)]

    def offer(self, arrival: Arrival) -> None:
        with self.arrived:
            self.arrivals.append(arrival)
            self.arrived.notify_all()

    def wait_for(self, kind: type, count: int = 1, limit_s: float = 10.0) -> list[Any]:
        """Wait until so many arrivals of a kind have been handed over."""

        def of_kind() -> list[Any]:
            return [arrival for arrival in self.arrivals if isinstance(arrival, kind)]

        with self.arrived:
            assert self.arrived.wait_for(lambda: len(of_kind()) >= count, limit_s)
            return of_kind()


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[..., Listening]]:
    """Start a reception: `listen(socket_timeout_s=1, spool=Spool(...))`."""
    started: list[Listening] = []

    def start(
        spool: Spool | None = None,
        door: Door | None = None,
        decodable: tuple[str, ...] = (JPEGLosslessSV1,),
        **settings: Any,
    ) -> Listening:
        options = Reception(port=0, **settings)
        listening = Listening(None, spool or Spool(tmp_path / "spool"))  # type: ignore[arg-type]
        listening.scp = StorageSCP(
            options,
            door or Door(options, ()),
            listening.spool,
            listening.offer,
            decodable=decodable,
            clock=lambda: datetime.now(UTC),
        )
        listening.scp.start()
        started.append(listening)
        return listening

    yield start
    for listening in started:
        listening.scp.stop(limit_s=0)


@pytest.fixture(scope="session")
def make_ct() -> Callable[..., Dataset]:
    """Make a small CT instance: `make_ct(rows=64, PatientID="X")`."""

    def make(rows: int = 16, **attributes: Any) -> Dataset:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = CT_IMAGE
        ds.SOPInstanceUID = generate_uid()
        ds.Modality = "CT"
        ds.PatientName = "MARKER^NAME"
        ds.PatientID = "MARKER-ID"
        ds.StudyInstanceUID = "1.2.3"
        ds.SeriesInstanceUID = "1.2.3.4"
        ds.Rows = ds.Columns = rows
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit = 15
        ds.SamplesPerPixel, ds.PixelRepresentation = 1, 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.PixelData = bytes(2 * rows * rows)
        for name, value in attributes.items():
            setattr(ds, name, value)
        return ds

    return make
