"""What a report says in words: names of stacks, and what was left out and why.

Plain English without identifiers; `content.plain` makes it safe for any character set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tfkt_node.records import UNREAD, Assessment, InstanceState, Reason, StackSummary


def stack_name(a: Assessment, index: int) -> str:
    """Name a stack of an assessment by what sets it apart: "Stack 1 of 2: acquisition 3, …"."""
    stack = a.stacks[index]
    parts = [f"acquisition {stack.acquisition}"] if stack.acquisition else []
    parts.append(stack.orientation.lower())
    if stack.kernel:
        parts.append(f"kernel {stack.kernel}")
    return f"Stack {index + 1} of {len(a.stacks)}: {', '.join(parts)}"


def remarks(a: Assessment) -> Iterator[str]:
    """Say what has no score: stacks, slices out of scope, instances that are in no stack."""
    for index, stack in enumerate(a.stacks):
        if stack.score is None:
            yield f"{stack_name(a, index)}: no score; {_left_out(stack)}"
        elif stack.out_of_scope:
            yield f"{stack_name(a, index)}: {_left_out(stack)}"
    apart = _in_no_stack(a)
    if apart:
        yield f"{_count(len(apart), 'instance')} in no stack: {_tally(apart)}"


def unread(a: Assessment) -> str:
    """Say how much should have been scored and could not be read; instances: those in no stack."""
    slices = sum(item.reason in UNREAD for stack in a.stacks for item in stack.slices)
    instances = sum(reason in UNREAD for reason in _in_no_stack(a))
    found = ((slices, "slice"), (instances, "instance"))
    counts = " and ".join(_count(number, thing) for number, thing in found if number)
    return f"{counts or 'Slices'} that should have been scored could not be read."


def _in_no_stack(a: Assessment) -> list[Reason | None]:
    placed = {item.digest for stack in a.stacks for item in stack.slices}
    return [
        item.reason
        for item in a.instances
        if item.state is InstanceState.NOT_ASSESSED and item.digest not in placed
    ]


def _left_out(stack: StackSummary) -> str:
    reasons = [item.reason for item in stack.slices if not item.in_scope]
    why = f": {_tally(reasons)}" if reasons else ""
    return f"{_count(stack.out_of_scope, 'slice')} out of scope{why}"


def _tally(reasons: Iterable[Reason | None]) -> str:
    counts = Counter(reasons).most_common()
    return "; ".join(
        f"{number} x {reason}: {reason.sentence}" if reason else f"{number} x no reason stated"
        for reason, number in counts
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
