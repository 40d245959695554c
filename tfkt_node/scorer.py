"""The supervised child process around `assess`: time and memory limits, and a new child in need.

Guarantees that a crash or a hang while decoding or scoring costs one attempt at one revision,
never the node (promises P4, P6 and P7). It keeps no state of its own: who retries, and how often,
is decided by the caller from the rows of the audit store.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType

from tfkt_node import logs
from tfkt_node.records import (
    Assessment,
    InstanceRef,
    Misconfigured,
    NodeError,
    Permanent,
    Reason,
    Retriable,
)
from tfkt_node.settings import Settings

log = logging.getLogger(__name__)

Assess = Callable[[Sequence[InstanceRef], bytes], Assessment]

POLL_S = 0.2
"""How often a waiting caller gets a turn, to renew its lease or to stop."""


class ScoringFailed(Retriable):
    """One attempt at a revision failed. reason: SCORER_CRASHED, SCORER_TIMEOUT or SCORER_ERROR."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.sentence} {detail}".strip())
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ScoringFailed], tuple[Reason, str]]:
        return ScoringFailed, (self.reason, self.detail)  # it crosses the pipe


class ScorerUnavailable(Retriable):
    """No revision can be scored until this is mended; no revision is to blame for it."""


class Scorer:
    """Runs `assess` in a child process, one revision at a time.

    The child starts with the first revision and lives until `close`; the model is loaded once in
    its life. Not for use by several threads at once.
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

    def submit(
        self,
        instances: Sequence[InstanceRef],
        attributes: bytes,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> Assessment:
        """Assess one revision in the child.

        attributes: see InstanceHeader. while_waiting is called a few times a second; an exception
        from it ends the attempt and the child.
        Raises ScoringFailed when the child crashed, ran past the limit or reported an error, and
        ScorerUnavailable when it cannot work at all.
        """
        self._start()
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
            answer: Assessment | NodeError = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ScoringFailed(Reason.SCORER_CRASHED, self._death()) from error
        except BaseException:
            self._kill()
            raise
        if isinstance(answer, NodeError):
            raise answer
        return answer

    def close(self) -> None:
        """End the child. An attempt in progress is lost and will be made again by its lease."""
        self._kill()

    def _start(self) -> None:
        """Start a child unless one lives. Raises ScorerUnavailable where there is no room."""
        if self._child is not None and self._child.is_alive():
            return
        self.close()
        ours, theirs = self._context.Pipe()
        child = self._context.Process(
            target=_run_child, args=(theirs, self._settings), name="tfkt-node-scorer", daemon=True
        )
        try:
            child.start()
        except OSError as error:
            ours.close()
            raise ScorerUnavailable(
                f"no process could be started for scoring ({error.strerror})"
            ) from error
        finally:
            theirs.close()  # else the end of the child would not be seen on our side
        self._child, self._pipe = child, ours

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
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit = settings.scoring.memory_limit_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    assess: Assess | None = None
    while True:
        try:
            instances, attributes = pipe.recv()
        except EOFError:
            return
        try:
            if assess is None:
                assess = _load(settings)
            answer: Assessment | NodeError = assess(instances, attributes)
        except ScorerUnavailable as error:
            answer = error
        except MemoryError:
            answer = ScoringFailed(
                Reason.SCORER_ERROR,
                f"The memory limit was met (scoring.memory_limit_mb is {limit >> 20}).",
            )
        except NodeError as error:
            answer = ScoringFailed(Reason.SCORER_ERROR, str(error))
        except Exception as error:
            # The type alone: messages of libraries may quote what the header holds (P10).
            log.exception("scorer.error type=%s", type(error).__name__)
            answer = ScoringFailed(
                Reason.SCORER_ERROR, f"{type(error).__name__} in the scoring process."
            )
        try:
            pipe.send(answer)
        except OSError:
            return


def _end_with_parent() -> None:
    """End this process when its parent is killed, even in the middle of a revision."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _load(settings: Settings) -> Assess:
    """Load the model. Raises ScorerUnavailable, with the cure, when it cannot be."""
    from tfkt_node.assess import Assessor
    from tfkt_node.iqa.bundle import load
    from tfkt_node.iqa.engine import open_engine

    scoring = settings.scoring
    try:
        bundle = load(scoring.bundle)
        engine = open_engine(bundle, scoring.engine, scoring.device, scoring.streams)
    except Permanent as error:
        raise ScorerUnavailable(f"{error}; {error.cure}") from error
    except Misconfigured as error:
        raise ScorerUnavailable(str(error)) from error
    return Assessor(settings, bundle, engine).assess
