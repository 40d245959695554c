"""What `tfkt-node bench reception` measures: instances a second, beside Orthanc and DCMTK.

One run, interleaved rounds: what else the machine does meets all receivers alike. Each round each
receiver starts in an empty folder, takes a few instances that are not counted, then some from one
sender, and others from four at once. The time is that of the senders, DCMTK's storescu, from start
to end.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tfkt_node.cli.bench_receivers import ENVIRONMENT, RECEIVERS, Listening, find
from tfkt_node.records import CT_IMAGE, Misconfigured

SENDERS = (1, 4)
WARM_UP = 8
"""Instances that go ahead uncounted: a receiver that has run for a while has its caches filled."""
CATCH_UP_S = 60.0

PARTS = ("network", "write", "sync", "index")
"""Of an instance: waiting for its sender and reading, writing and digesting its file, bringing it
to the disk, name and all; and its row, which another thread writes meanwhile."""


@dataclass(slots=True)
class Measured:
    """What came of one receiver. remark: what it does, or why there are no figures.

    per_second: instances, one figure a round, by the number of senders. parts_ms: of this node, the
    milliseconds an instance of one association, likewise. lag_s: from the last answer to the last
    row.
    """

    name: str
    remark: str
    per_second: dict[int, list[float]] = field(default_factory=dict)
    parts_ms: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    lag_s: list[float] = field(default_factory=list)

    def median(self, senders: int) -> float | None:
        """Median over the rounds; None where nothing was measured."""
        rates = self.per_second.get(senders)
        return median(rates) if rates else None


def measure(
    scratch: Path, rounds: int, instances: int, say: Callable[[str], None]
) -> list[Measured]:
    """Measure every receiver that is installed, this node first. scratch: gets 1.5 MB an instance.

    Raises Misconfigured without DCMTK's storescu, and for a receiver that does not work.
    """
    if find("storescu") is None:
        raise Misconfigured("bench reception sends with DCMTK's storescu: install dcmtk")
    say("Writing the instances …")
    warm_up = write_instances(scratch / "warm-up", max(SENDERS), WARM_UP)
    sources = [write_instances(scratch / f"from-{count}", count, instances) for count in SENDERS]
    rows = [Measured(receiver.name, receiver.remark) for receiver in RECEIVERS]
    for number in range(rounds):
        for turn in range(len(RECEIVERS)):
            index = (number + turn) % len(RECEIVERS)
            receiver, row = RECEIVERS[index], rows[index]
            if not receiver.is_installed:
                row.remark = f"{receiver.program} is not installed"
                continue
            say(f"Round {number + 1} of {rounds}: {receiver.name} …")
            folder = scratch / f"receiver-{number}-{turn}"
            folder.mkdir()
            with receiver.run(folder) as at:
                _measure_once(row, at, warm_up, sources)
            _empty(folder)
    return rows


def _empty(folder: Path) -> None:
    """Give the disk back what files take, and keep the files.

    While files have been deleted lately, ext4 may look at each of them before it makes a new one:
    the next receiver would pay for what this one has left.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.truncate(path, 0)


def _measure_once(
    row: Measured, at: Listening, warm_up: Sequence[Path], sources: Sequence[Sequence[Path]]
) -> None:
    log = NodeLog(at.log) if at.is_this_node else None
    sent = 0
    for folders in (warm_up, *sources):
        count = sum(len(list(folder.iterdir())) for folder in folders)
        rate = count / send(at, folders)
        sent += count
        parts = log.parts_ms(len(folders), count) if log else {}
        if folders is warm_up:
            continue
        row.per_second.setdefault(len(folders), []).append(rate)
        for part, value in parts.items():
            row.parts_ms.setdefault(len(folders), {}).setdefault(part, []).append(value)
    if log:
        row.lag_s.append(log.lag_s)
    if (kept := at.kept()) < sent:
        raise Misconfigured(f"{row.name} kept {kept} of {sent} instances")


class NodeLog:
    """What this node's log says of where its time goes."""

    def __init__(self, path: Path) -> None:
        self.lag_s = 0.0
        self._path = path
        self._read = 0  # lines that were counted before

    def parts_ms(self, associations: int, instances: int) -> dict[str, float]:
        """Return what the last associations took, milliseconds an instance, and set lag_s.

        Waits until the index has them all. Raises Misconfigured when it does not get there.
        """
        began = time.monotonic()
        while True:
            lines = self._lines()
            new = lines[self._read :]
            ended = [line for line in new if line["event"] == "association.ended"]
            indexed = [line for line in new if line["event"] == "index.caught_up"]
            if len(ended) == associations and _total(indexed, "instances") >= instances:
                break
            if time.monotonic() - began > CATCH_UP_S:
                raise Misconfigured(f"the index did not catch up within {CATCH_UP_S:g} s")
            time.sleep(0.02)
        self.lag_s = time.monotonic() - began
        self._read = len(lines)
        seconds = {
            "network": _total(ended, "waited_s"),
            "write": _total(ended, "write_s"),
            "sync": _total(ended, "sync_s"),
            "index": _total(indexed, "busy_s"),
        }
        return {part: 1000 * seconds[part] / instances for part in PARTS}

    def _lines(self) -> list[Mapping[str, str]]:
        whole = self._path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        return [json.loads(line) for line in whole if line.startswith("{")]


def _total(lines: Sequence[Mapping[str, str]], key: str) -> float:
    return sum(float(line[key]) for line in lines)


def send(at: Listening, folders: Sequence[Path]) -> float:
    """Send each folder over an association of its own, at once; return the seconds it took."""
    options = ["--aetitle", "BENCH", "--call", at.ae_title, "--max-pdu", "131072", "--required"]
    options += ["--scan-directories", "127.0.0.1", str(at.port)]
    began = time.perf_counter()
    senders = [
        subprocess.Popen(
            [str(find("storescu")), *options, str(folder)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder in folders
    ]
    said = [sender.communicate()[0] for sender in senders]
    took_s = time.perf_counter() - began
    for sender, text in zip(senders, said, strict=True):
        if sender.returncode != 0:
            raise Misconfigured(f"{at.ae_title} did not take all instances: {text.strip()[:200]}")
    return took_s


def write_instances(folder: Path, folders: int, count: int) -> list[Path]:
    """Write CT instances of 0.5 MB, evenly into folders, a series each; return the folders."""
    template = _template()
    made = [folder / str(number) for number in range(folders)]
    for one in made:
        one.mkdir(parents=True)
        ds = copy.deepcopy(template)
        ds.SeriesInstanceUID = generate_uid(prefix=None)
        for number in range(count // folders):
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
            ds.InstanceNumber = number + 1
            ds.ImagePositionPatient = [0, 0, number]
            ds.save_as(one / f"{number}.dcm", enforce_file_format=True)
    return made


def _template() -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CT_IMAGE
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Modality, ds.Manufacturer = "CT", "Simulated"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20260101", "120000", "BENCH"
    ds.StudyDescription = ds.SeriesDescription = "Reception benchmark"
    ds.PatientName = ds.PatientID = "BENCH"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19700101", "O", "056Y"
    ds.StudyInstanceUID = generate_uid(prefix=None)
    ds.FrameOfReferenceUID = generate_uid(prefix=None)
    ds.KVP, ds.SliceThickness, ds.ConvolutionKernel = 120, 1, "STANDARD"
    ds.SeriesNumber = ds.AcquisitionNumber = 1
    ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
    ds.Rows = ds.Columns = 512
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleIntercept, ds.RescaleSlope = 0, 1
    noise = np.random.default_rng(1).normal(0, 100, (512, 512))
    ds.add_new("PixelData", "OW", noise.astype("<i2").tobytes())
    return ds
