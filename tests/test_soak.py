"""Thousands of sends over four associations, as an unruly ward would: rows and files agree."""

from __future__ import annotations

import random
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.audit.rows import rows_of
from tests.reception import wire
from tests.reception.wire import Peer
from tests.running_node import RunningNode, running, wait_for
from tfkt_node.reception.instances import digest_of
from tfkt_node.records import CT_IMAGE

ASSOCIATIONS = 4
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


@dataclass(frozen=True)
class Send:
    """One instance as it is sent: who it is of, its SOP Instance UID, and its bytes."""

    series: tuple[str, str]
    uid: str
    data: bytes

    @property
    def digest(self) -> str:
        return digest_of(CT_IMAGE, self.uid, EXPLICIT_LITTLE, self.data)


def data_set(patient: str, series: str, uid: str, number: int, pixels: bytes) -> bytes:
    """Encode a CT instance in Explicit VR Little Endian."""
    texts = [
        (0x0008, 0x0016, "UI", CT_IMAGE), (0x0008, 0x0018, "UI", uid),
        (0x0008, 0x0060, "CS", "CT"), (0x0010, 0x0020, "LO", patient),
        (0x0020, 0x000D, "UI", "1.2.3"), (0x0020, 0x000E, "UI", series),
        (0x0020, 0x0013, "IS", str(number)),
    ]  # fmt: skip
    encoded = b""
    for group, element, vr, text in texts:
        value = text.encode() + (b"\0" if vr == "UI" else b" ") * (len(text) % 2)
        encoded += struct.pack("<HH2sH", group, element, vr.encode(), len(value)) + value
    return encoded + struct.pack("<HH2sxxL", 0x7FE0, 0x0010, b"OW", len(pixels)) + pixels


def planned(count: int, rng: random.Random) -> list[Send]:
    """Plan sends: instances, some of them again, some with other bytes, some UIDs twice."""
    series = [(f"P{n}", f"1.2.{n}") for n in range(max(4, count // 250))]
    series += [("OTHER", uid) for _, uid in series[:2]]  # two patients under one series UID
    sends: list[Send] = []
    while len(sends) < count:
        kind = rng.random()
        if kind < 0.2 and sends:
            sends.append(rng.choice(sends))
            continue
        patient, series_uid = rng.choice(series)
        uid = f"{series_uid}.{len(sends)}"
        if kind < 0.35 and sends:  # other bytes under a known UID, in its series or in another
            uid = rng.choice(sends).uid
        pixels = rng.randbytes(2 * rng.randrange(4000))
        data = data_set(patient, series_uid, uid, len(sends), pixels)
        sends.append(Send((patient, series_uid), uid, data))
    rng.shuffle(sends)
    return sends


class Sender(threading.Thread):
    """One sender: it sends its share until each instance is answered, and is often cut short."""

    def __init__(self, port: int, sends: list[Send], seed: int) -> None:
        super().__init__(name=f"sender {seed}")
        self.answered: list[Send] = []
        self.ends: Counter[str] = Counter()
        self.error: Exception | None = None
        self._port, self._left, self._rng = port, list(sends), random.Random(seed)

    def run(self) -> None:
        try:
            while self._left:
                self._associate()
        except Exception as error:  # noqa: BLE001 - told by the test's own thread
            self.error = error

    def _associate(self) -> None:
        """Send some instances over an association, and end it in one way or another."""
        end = self._rng.choice(("RELEASED", "ABORTED", "LOST", "LOST"))
        with Peer(self._port) as peer:
            assert peer.associate() == wire.ASSOCIATE_AC
            for number in range(self._rng.randrange(1, 60)):
                if not self._left:
                    break
                self._send(peer, self._left[-1], number)
            if end == "LOST" and self._left:
                pdus = wire.store_pdus(self._left[-1].uid, self._left[-1].data, piece=1000)
                peer.send(pdus[: self._rng.randrange(1, len(pdus))])
            elif end == "ABORTED":
                peer.send(struct.pack(">BxLxxxx", wire.ABORT, 4))
            elif end == "RELEASED":
                peer.send(wire.RELEASE_RQ)
                assert peer.receive()[0] == wire.RELEASE_RP
        self.ends[end] += 1

    def _send(self, peer: Peer, one: Send, number: int) -> None:
        piece = self._rng.choice((500, 4000, 100_000))
        peer.send(wire.store_pdus(one.uid, one.data, number, piece))
        assert peer.status() == 0x0000
        self.answered.append(self._left.pop())


def soak(node: RunningNode, count: int) -> None:
    rng = random.Random(count)
    sends = planned(count, rng)
    expected = {one.digest for one in sends}
    senders = [
        Sender(node.port, sends[number::ASSOCIATIONS], number) for number in range(ASSOCIATIONS)
    ]

    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert [sender.error for sender in senders] == [None] * ASSOCIATIONS
    with node.store() as store:
        wait_for("every row", lambda: len(store.known_digests()) >= len(expected), 120)
        wait_for("every end", lambda: None not in ends(node), 30)
    node.stop()

    assert sorted(one.digest for sender in senders for one in sender.answered) == sorted(
        one.digest for one in sends
    )
    node.assert_whole()
    told = sum((sender.ends for sender in senders), Counter())
    assert Counter(ends(node)) == told
    with node.store() as store:
        rows = {row["id"]: row for row in rows_of(store, "series")}
        revisions = rows_of(store, "revisions")
        instances = rows_of(store, "instances")
    assert {row["digest"] for row in instances} == expected
    assert [(one["number"], one["state"]) for one in revisions] == [(1, "OPEN")] * len(rows)
    assert {one["series_id"] for one in revisions} == set(rows)
    found = Counter(
        (rows[one["series_id"]]["patient_id"], rows[one["series_id"]]["series_uid"])
        for one in instances
    )
    assert found == Counter(one.series for one in {one.digest: one for one in sends}.values())


def ends(node: RunningNode) -> list[str | None]:
    with node.store() as store:
        return [row["how"] for row in rows_of(store, "associations")]


@pytest.fixture
def node(tmp_path: Path, database_url: str) -> Iterator[RunningNode]:
    node = RunningNode(tmp_path / "node", database_url, quiet_s=86_400)
    with running(node):
        yield node


@pytest.mark.station
def test_three_hundred_sends_agree(node: RunningNode) -> None:
    """P1, P3, P4: aborts, resends and duplicate UIDs: rows and files agree, one open revision."""
    soak(node, 300)


@pytest.mark.soak
def test_ten_thousand_sends_agree(node: RunningNode) -> None:
    """P1, P3, P4: the same, ten thousand times."""
    soak(node, 10_000)
