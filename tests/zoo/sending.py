"""Send files to a real node, by pynetdicom and by DCMTK, and read what became of each.

Files of one series, or of one SOP Instance UID, would take each other's place (promise P3): they go
in rounds, and each round waits until the node has an outcome for what it got.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_STORE

from tests.reception.scu import associate
from tests.running_node import RunningNode, running, wait_for
from tfkt_node.cli.intake import GivenFile
from tfkt_node.reception.file_meta import (
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    TRANSFER_SYNTAX_UID,
    read_meta,
)
from tfkt_node.reception.instances import digest_of, is_uid
from tfkt_node.records import Reason, SetAside

Answers = dict[Path, str]
Round = list[GivenFile]
Sent = tuple[str, str, str, bytes]
"""SOP Class UID, SOP Instance UID, Transfer Syntax UID, data set."""

NOT_SENT = "not sent"
CONTEXTS_AT_ONCE = 100
PATIENCE_S = 1800.0

PROPOSALS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
"""Transfer syntax -> storescu's option for it; the others it cannot send."""


def stored_by_pynetdicom(given: Sequence[GivenFile], folder: Path) -> Answers:
    """Send the bytes of each file as they are, and say what became of it at the node."""
    answers: Answers = {}
    with running(_node(folder)) as node:
        for one_round in _rounds(given):
            kept = {}
            for path, sent, refusal in _sent(node.port, one_round):
                answers[path] = refusal
                if sent is not None and not refusal:
                    kept[path] = digest_of(*sent)
            wait_for("an outcome for every instance", lambda: _is_settled(node), PATIENCE_S)
            by_digest = {row[0]: row[-1] for row in _rows(node)}
            answers |= {path: by_digest[digest] for path, digest in kept.items()}
    return answers


def _sent(port: int, one_round: Round) -> Iterator[tuple[Path, Sent | None, str]]:
    """Yield each file, what was sent of it, and the refusal: '' where the node kept it."""
    by_context: dict[tuple[str, str], list[tuple[Path, Sent]]] = defaultdict(list)
    for one in one_round:
        sent = _as_sent(one)
        if sent is None or not (is_uid(sent[0]) and is_uid(sent[2])):
            yield one.path, None, NOT_SENT
        else:
            by_context[sent[0], sent[2]].append((one.path, sent))
    pairs_of = list(by_context)
    for first in range(0, len(pairs_of), CONTEXTS_AT_ONCE):
        pairs = pairs_of[first : first + CONTEXTS_AT_ONCE]
        assoc = associate(port, [build_context(*pair) for pair in pairs])
        for pair in pairs:
            for path, sent in by_context[pair]:
                yield path, sent, _answer_to(assoc, sent)
        assoc.release()


def stored_by_dcmtk(given: Sequence[GivenFile], folder: Path, storescu: str) -> Answers:
    """Let DCMTK's storescu send what it can read, and say what became of it at the node.

    It encodes some files anew, so that two may come to the same bytes: "duplicate".
    """
    answers = {one.path: NOT_SENT for one in given}
    known: set[str] = set()
    with running(_node(folder)) as node:
        for one_round in _rounds(given):
            accepted = _accepted_of_dcmtk(storescu, node.port, one_round)
            wait_for("an outcome for every instance", lambda: _is_settled(node), PATIENCE_S)
            rows = _rows(node)
            new = {uid: outcome for digest, uid, outcome in rows if digest not in known}
            known = {row[0] for row in rows}
            for one in one_round:
                if one.instance is not None and one.path in accepted:
                    answers[one.path] = new.get(one.instance.sop_uid, "duplicate")
    return answers


def _accepted_of_dcmtk(storescu: str, port: int, one_round: Round) -> set[Path]:
    """Send a round, one association a file: storescu gives up at some of them."""
    accepted = set()
    for one in one_round:
        sent = _as_sent(one)
        if one.instance is None or sent is None or sent[2] not in PROPOSALS:
            continue
        node = ["-aec", "TFKT_NODE", "127.0.0.1", str(port)]
        said = subprocess.run(
            [storescu, "-v", PROPOSALS[sent[2]], "-R", *node, str(one.instance.path)],
            env={**os.environ, "TCP_NODELAY": "1"}, capture_output=True, check=False,
            timeout=PATIENCE_S,
        )  # fmt: skip
        if b"Received Store Response (Success)" in said.stdout + said.stderr:
            accepted.add(one.path)
    return accepted


def _as_sent(one: GivenFile) -> Sent | None:
    """Return what a sender makes of a file, by its file meta information; None: nothing."""
    path = one.path if one.instance is None else one.instance.path
    try:
        meta, start = read_meta(path)
    except (SetAside, OSError):
        return None
    sop_class, sop_uid, syntax = (
        meta.get(number, "") for number in (SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID)
    )
    dataset = path.read_bytes()[start:]
    is_whole = sop_class and sop_uid and syntax and dataset
    return (sop_class, sop_uid, syntax, dataset) if is_whole else None


def _answer_to(assoc: Any, sent: Sent) -> str:
    """Send the bytes of a data set as they are; '' for success, else the refusal in words."""
    sop_class, sop_uid, syntax, dataset = sent
    for context in assoc.accepted_contexts:
        if (context.abstract_syntax, context.transfer_syntax[0]) == (sop_class, syntax):
            break
    else:
        return "no context"
    request = C_STORE()
    request.MessageID = 1
    try:
        request.AffectedSOPClassUID = sop_class
        request.AffectedSOPInstanceUID = sop_uid
    except ValueError:  # the library sends no UID of more than 64 characters
        return NOT_SENT
    request.Priority = 2
    request.DataSet = BytesIO(dataset)
    assoc._reactor_checkpoint.clear()
    assoc.dimse.send_msg(request, context.context_id)
    _, response = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    return "" if response.Status == 0x0000 else f"refused 0x{response.Status:04X}"


def _node(folder: Path) -> RunningNode:
    silent = ", ".join(f'"{reason}"' for reason in Reason)  # reports take most of a round's time
    report = f"[report]\nsilent_reasons = [{silent}]\n"
    return RunningNode(folder, "", settings=report, quiet_s=0.2, lease_s=60)


def _rounds(given: Sequence[GivenFile]) -> Iterator[Round]:
    """Split the files so that no round has two of one series or of one SOP Instance UID."""
    waiting = list(given)
    while waiting:
        taken: set[object] = set()
        one_round, later = [], []
        for one in waiting:
            keys: set[object] = set()
            if one.instance is not None:
                keys = {one.series_key, one.instance.sop_uid}
            (later if keys & taken else one_round).append(one)
            taken |= keys if not keys & taken else set()
        yield one_round
        waiting = later


def _is_settled(node: RunningNode) -> bool:
    files = {path.stem for path in node.spool_folder.glob("instances/*/*.dcm")}
    with closing(_database(node)) as database:
        indexed = {digest for (digest,) in database.execute("select digest from instances")}
        [(waiting,)] = database.execute(
            "select count(*) from revisions where state in ('OPEN', 'STABLE', 'SCORING')"
        )
    return files == indexed and waiting == 0


def _rows(node: RunningNode) -> list[tuple[str, str, str]]:
    """Digest, SOP Instance UID, and what became of each instance when it was last in a revision."""
    with closing(_database(node)) as database:
        found = database.execute(
            "select i.digest, i.sop_instance_uid, coalesce(r.state, i.state), "
            "case when r.state is null then i.reason else r.reason end "
            "from instances i left join revision_instances r on r.instance_id = i.id "
            "order by r.revision_id"
        )
        return [
            (digest, uid, " ".join(word for word in (state.lower(), reason) if word is not None))
            for digest, uid, state, reason in found
        ]


def _database(node: RunningNode) -> sqlite3.Connection:
    path = node.database_url.removeprefix("sqlite:///")
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)
