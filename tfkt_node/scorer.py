"""The supervised child process around `assess`: time and memory limits, and a new child in need.

Guarantees that a crash or a hang while decoding or scoring costs one attempt at one revision,
never the node (promises P4, P6 and P7). It keeps no state of its own: who retries, and how often,
is decided by the caller from the rows of the audit store.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType

from tfkt_node import logs
from tfkt_node.records import Assessment, InstanceRef, NodeError, Reason, Retriable
from tfkt_node.settings import Settings

log = logging.getLogger(__name__)

POLL_S = 0.2
"""How often a waiting caller gets a turn, to renew its lease or to stop."""


class ScoringFailed(Retriable):
    """One attempt at a revision failed. reason: SCORER_CRASHED, SCORER_TIMEOUT or SCORER_ERROR."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.sentence} {detail}".strip())
        self.reason = reason
        self.detail = detail


class Scorer:
    """Runs `assess` in a child process, one revision at a time.

    The child starts with the first revision, or with `start`, and lives until `close`; the model
    is loaded once in its life. Not for use by several threads at once.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._context = multiprocessing.get_context("spawn")
        self._child: BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the child ahead of need, so that the first series does not wait for the model."""
        if self._child is not None and self._child.is_alive():
            return
        self.close()
        ours, theirs = self._context.Pipe()
        self._child = self._context.Process(
            target=_run_child, args=(theirs, self._settings), name="tfkt-node-scorer", daemon=True
        )
        self._child.start()
        theirs.close()  # else the end of the child would not be seen on our side
        self._pipe = ours

    def submit(
        self,
        instances: Sequence[InstanceRef],
        attributes: bytes,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> Assessment:
        """Assess one revision in the child.

        attributes: see InstanceHeader. while_waiting is called a few times a second; an exception
        from it ends the attempt and the child.
        Raises ScoringFailed when the child crashed, ran past the limit or reported an error.
        """
        self.start()
        assert self._pipe is not None
        deadline = time.monotonic() + self._settings.scoring.time_limit_s
        try:
            self._pipe.send((tuple(instances), attributes))
            while not self._pipe.poll(POLL_S):
                while_waiting()
                if time.monotonic() > deadline:
                    limit = self._settings.scoring.time_limit_s
                    raise ScoringFailed(
                        Reason.SCORER_TIMEOUT, f"scoring.time_limit_s is {limit:g} s."
                    )
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ScoringFailed(Reason.SCORER_CRASHED, self._death()) from error
        except BaseException:
            self._kill()
            raise
        if isinstance(answer, Assessment):
            return answer
        raise ScoringFailed(Reason.SCORER_ERROR, str(answer))

    def close(self) -> None:
        """End the child. An attempt in progress is lost and will be made again by its lease."""
        self._kill()

    def _death(self) -> str:
        """Say in words how the child ended."""
        child = self._child
        if child is None:
            return ""
        child.join(timeout=5)
        code = child.exitcode
        self._kill()
        if code is None:
            return "It stopped answering."
        if code < 0:
            return f"Ended by {signal.Signals(-code).name}."
        return f"Exit code {code}."

    def _kill(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._child is not None:
            self._child.kill()
            self._child.join()
            self._child.close()
            self._child = None


def _run_child(pipe: Connection, settings: Settings) -> None:
    """Load the model once, then answer requests until the parent is gone."""
    logs.configure(settings.logging)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to us as well
    limit = settings.scoring.memory_limit_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    assess: Callable[[Sequence[InstanceRef], bytes], Assessment] | None = None
    while True:
        try:
            instances, attributes = pipe.recv()
        except EOFError:
            return
        try:
            if assess is None:
                assess = _load(settings)
            answer: Assessment | str = assess(instances, attributes)
        except MemoryError:
            answer = f"The memory limit was met (scoring.memory_limit_mb is {limit >> 20})."
        except NodeError as error:
            answer = str(error)
        except Exception as error:
            # The type alone: messages of libraries may quote what the header holds (P10).
            log.exception("scorer.error type=%s", type(error).__name__)
            answer = f"{type(error).__name__} in the scoring process."
        try:
            pipe.send(answer)
        except OSError:
            return


def _load(settings: Settings) -> Callable[[Sequence[InstanceRef], bytes], Assessment]:
    from tfkt_node.assess import Assessor
    from tfkt_node.iqa.bundle import load
    from tfkt_node.iqa.engine import open_engine

    scoring = settings.scoring
    bundle = load(scoring.bundle)
    engine = open_engine(bundle, scoring.engine, scoring.device, scoring.streams)
    return Assessor(settings, bundle, engine).assess
