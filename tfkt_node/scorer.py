"""The supervised child process around `assess`: time and memory limits, and a new child in need.

Guarantees that a crash or a hang while decoding or scoring costs one attempt at one revision,
never the node (promises P4, P6 and P7), and that an instance which ends the child each time it is
read costs itself only. Who retries a revision, and how often, is decided by the caller from the
rows of the audit store.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import TYPE_CHECKING

from tfkt_node.child import confine
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

if TYPE_CHECKING:
    from tfkt_node.assess import Assessor

log = logging.getLogger(__name__)

POLL_S = 0.2
"""How often a waiting caller gets a turn, to renew its lease or to stop."""

SURE_AFTER = 2
"""Ends of the child in the hands of one instance before it is blamed: the first may have had
another cause, such as a machine without memory."""

MOST_POISONED = 8
"""Instances of one revision that are left out for it; more are a fault of the node's own."""

DIGEST_BYTES = 64


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
        self._in_hand = _InHand(self._context)
        self._ends_of: Counter[str] = Counter()

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
        Raises ScoringFailed when the child crashed, ran past a limit or reported an error that no
        single instance is to blame for, and ScorerUnavailable when it cannot work at all.
        """
        for _ in range(SURE_AFTER * MOST_POISONED):
            poisoned = self._poisoned(instances)
            try:
                return self._attempt(instances, attributes, poisoned, while_waiting)
            except ScoringFailed as failure:
                in_hand = self._in_hand.digest
                if in_hand not in {ref.digest for ref in instances}:
                    raise
                self._kill()
                self._ends_of[in_hand] += 1
                log.warning(
                    'instance.ended_scorer digest=%s times=%d reason=%s why="%s"',
                    in_hand, self._ends_of[in_hand], failure.reason, failure.detail,
                )  # fmt: skip
                last = failure
        raise last

    def _poisoned(self, instances: Sequence[InstanceRef]) -> frozenset[str]:
        counted = ((ref.digest, self._ends_of[ref.digest]) for ref in instances)
        return frozenset(digest for digest, ends in counted if ends >= SURE_AFTER)

    def _attempt(
        self,
        instances: Sequence[InstanceRef],
        attributes: bytes,
        poisoned: frozenset[str],
        while_waiting: Callable[[], None],
    ) -> Assessment:
        self._start()
        assert self._pipe is not None
        self._in_hand.clear()
        scoring = self._settings.scoring
        deadline = time.monotonic() + scoring.time_limit_s
        # So that a slow instance leaves time for the others, and is the only one set aside.
        budget_s = scoring.time_limit_s / 2 if len(instances) > 1 else scoring.time_limit_s
        patience = _Patience(self._in_hand, scoring.read_time_limit_s, budget_s)
        try:
            self._pipe.send((tuple(instances), attributes, poisoned))
            while not self._pipe.poll(POLL_S):
                while_waiting()
                if time.monotonic() > deadline:
                    self._in_hand.clear()  # the revision is too long, which no instance is
                    raise ScoringFailed(
                        Reason.SCORER_TIMEOUT,
                        f"scoring.time_limit_s is {scoring.time_limit_s:g} s.",
                    )
                if ended := patience.ends():
                    raise ScoringFailed(Reason.SCORER_TIMEOUT, ended)
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
            target=_run_child,
            args=(theirs, self._settings, self._in_hand),
            name="tfkt-node-scorer",
            daemon=True,
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


class _InHand:
    """Which instance the child is reading, in memory that both processes see.

    Written without a lock: it is only trusted once the child has ended or hangs.
    """

    def __init__(self, context: SpawnContext) -> None:
        self._digest = context.RawArray("c", DIGEST_BYTES + 1)
        self._looks = context.RawValue("Q", 0)

    @property
    def digest(self) -> str:
        """Its digest; '' while none is being read."""
        return bytes(self._digest.value).decode("ascii")

    @property
    def looks(self) -> int:
        """How many times the child began or ended to read something."""
        return int(self._looks.value)

    def clear(self) -> None:
        self("")

    def __call__(self, digest: str) -> None:
        """Say which is in hand now."""
        self._digest.value = digest.encode("ascii", "replace")[:DIGEST_BYTES]
        self._looks.value += 1


class _Patience:
    """Tells when the child has been reading the same thing for too long.

    budget_s: for all the frames of one instance together, each of which may be quick enough.
    """

    def __init__(self, in_hand: _InHand, limit_s: float, budget_s: float) -> None:
        self._in_hand = in_hand
        self._limit_s = limit_s
        self._budget_s = budget_s
        self._looks = -1
        self._since = self._last = time.monotonic()
        self._spent_s: defaultdict[str, float] = defaultdict(float)

    def ends(self) -> str:
        """Say which limit was met; '' while there is time. To be asked again and again."""
        digest, now = self._in_hand.digest, time.monotonic()
        passed_s, self._last = now - self._last, now
        if self._in_hand.looks != self._looks:
            self._looks, self._since = self._in_hand.looks, now
        if digest == "":
            return ""
        self._spent_s[digest] += passed_s
        if now - self._since > self._limit_s:
            return f"scoring.read_time_limit_s is {self._limit_s:g} s."
        if self._spent_s[digest] > self._budget_s:
            return f"One instance took {self._budget_s:g} s, half of scoring.time_limit_s."
        return ""


def _run_child(pipe: Connection, settings: Settings, in_hand: _InHand) -> None:
    """Load the model once, then answer requests until the parent is gone."""
    confine(settings)
    assessor: Assessor | None = None
    while True:
        try:
            instances, attributes, poisoned = pipe.recv()
        except EOFError:
            return
        try:
            if assessor is None:
                assessor = _load(settings)
            answer: Assessment | NodeError = assessor.assess(
                instances, attributes, poisoned=poisoned, looking_at=in_hand
            )
        except ScorerUnavailable as error:
            answer = error
        except MemoryError:
            answer = ScoringFailed(
                Reason.SCORER_ERROR,
                "The memory limit was met "
                f"(scoring.memory_limit_mb is {settings.scoring.memory_limit_mb}).",
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


def _load(settings: Settings) -> Assessor:
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
    return Assessor(settings, bundle, engine)
