"""P1 seen from the kernel: no answer before file and folder are on the disk."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reception import strace_checker
from tests.reception.scu import associate
from tfkt_node.reception.file_meta import read_meta
from tfkt_node.reception.instances import Spool

pytestmark = pytest.mark.crash

SERVER = Path(__file__).parent / "reception_process.py"
ROOT = Path(__file__).parents[2]


def serve(spool, *before):
    process = subprocess.Popen(
        [*before, sys.executable, str(SERVER), str(spool)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return process, int(process.stdout.readline())


def end(process):
    process.stdin.close()
    process.stdout.close()
    process.wait(30)


@pytest.fixture(scope="module")
def trace(tmp_path_factory, require_tool, send_traced) -> list[str]:
    folder = tmp_path_factory.mktemp("traced")
    log = folder / "trace"
    strace = [require_tool("strace"), *strace_checker.ARGUMENTS, "-o", str(log), "--"]
    process, port = serve(folder / "spool", *strace)
    assoc = associate(port)
    statuses = [assoc.send_c_store(ds).Status for ds in send_traced]
    assoc.release()
    end(process)
    assert statuses == [0] * len(send_traced)
    return log.read_text().splitlines()


@pytest.fixture(scope="module")
def send_traced(make_ct):
    return [make_ct(rows=rows) for rows in (16, 128, 256)]


def test_p1_no_answer_before_the_disk_has_it(trace, send_traced):
    """P1: write, fsync, rename, fsync of the folder, and only then the answer, each time."""
    calls = strace_checker.parse(trace)

    assert [uid for uid, _ in strace_checker.answered(calls)] == [
        ds.SOPInstanceUID for ds in send_traced
    ]
    assert strace_checker.violations(calls) == []


def steps_of_second(trace):
    """Return the line numbers of the second instance's steps."""
    calls = strace_checker.parse(trace)
    uid, response = strace_checker.answered(calls)[1]
    first = next(c for c in calls if c.name == "write" and uid.encode() in c.data)
    rename = next(c for c in calls if c.name == "rename" and c.paths[0] == first.path)
    folder = str(Path(rename.paths[1]).parent)
    steps = {
        "write": [c for c in calls if c.name == "write" and c.path == first.path],
        "sync file": [c for c in calls if c.name == "fsync" and c.path == first.path],
        "rename": [rename],
        "sync folder": [
            c for c in calls if c.name == "fsync" and c.path == folder and c.began > rename.ended
        ][:1],
        "answer": [response],
    }
    return {name: [(c.began, c.ended) for c in found] for name, found in steps.items()}


@pytest.mark.parametrize("step", ["write", "sync file", "rename", "sync folder"])
def test_checker_sees_a_step_that_is_missing(trace, step):
    """A trace without any one of the steps fails the check."""
    gone = {number for pair in steps_of_second(trace)[step] for number in pair}
    edited = [line for number, line in enumerate(trace) if number not in gone]

    assert len(strace_checker.violations(strace_checker.parse(edited))) == 1


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("write", "sync file"),
        ("sync file", "rename"),
        ("rename", "sync folder"),
        ("sync folder", "answer"),
    ],
)
def test_checker_sees_steps_that_are_swapped(trace, earlier, later):
    """A trace in which a step comes after the one it must precede fails the check."""
    steps = steps_of_second(trace)
    moved = [trace[n] for n in sorted({n for pair in steps[earlier] for n in pair})]
    gone = {n for pair in steps[earlier] for n in pair}
    last = max(ended for _, ended in steps[later])
    edited = [line for number, line in enumerate(trace) if number not in gone]
    place = last + 1 - sum(number <= last for number in gone)
    edited[place:place] = moved

    assert len(strace_checker.violations(strace_checker.parse(edited))) == 1


def test_checker_sees_a_sync_that_failed(trace):
    """An fsync that returned an error is no fsync."""
    ((_, ended),) = steps_of_second(trace)["sync file"]
    edited = list(trace)
    edited[ended] = re.sub(r"= 0$", "= -1 EIO (Input/output error)", edited[ended])

    assert len(strace_checker.violations(strace_checker.parse(edited))) == 1


def test_p1_answered_instances_survive_a_kill(tmp_path, make_ct):
    """P1: after kill -9 amid reception, every instance that was answered is found again."""
    process, port = serve(tmp_path / "spool")
    assoc = associate(port)
    assoc.dimse_timeout = 5  # the library does not always see that the line has gone
    answered = []
    for number in range(30):
        ds = make_ct(rows=64)
        if number == 20:
            os.kill(process.pid, signal.SIGKILL)
        status = assoc.send_c_store(ds) if assoc.is_established else None
        if status and status.Status == 0:
            answered.append(ds.SOPInstanceUID)
    assoc.abort()
    end(process)

    spool = Spool(tmp_path / "spool")
    spool.sweep_partial_files()
    found = {read_meta(path)[0][3] for path in spool.stored_files()}

    assert len(answered) >= 20
    assert set(answered) <= found
    assert list(spool.incoming.iterdir()) == []
