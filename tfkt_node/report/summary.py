"""The report in sentences, before any number: what was found, why, how sure it is, where to look.

For a reader who knows nothing of the node. Numbers are those of the audit, not rounded, so that no
sentence contradicts a threshold. No identifier is put into it: of the images' own words it has the
number and description of the series, in its first sentence, and what tells stacks apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tfkt_node.records import (
    Assessment,
    Confidence,
    CriteriaInForce,
    EarlierVerdict,
    EvidenceInstance,
    Outcome,
    Reason,
    ReportRecord,
    SliceScore,
    StackSummary,
    Verdict,
)
from tfkt_node.report import codes, prose
from tfkt_node.report.content import Item, plain, text
from tfkt_node.report.elements import decoded, split
from tfkt_node.report.findings import (
    DESCRIPTIONS,
    contradiction,
    deciding_stack,
    lowest,
    score_of,
    verdict_of,
)

WORDS = {
    Verdict.DIAGNOSTIC: "diagnostic",
    Verdict.LIMITED: "limited",
    Verdict.NON_DIAGNOSTIC: "not diagnostic",
}

SERIES_NUMBER, SERIES_DESCRIPTION = 0x00200011, 0x0008103E
DESCRIPTION_LENGTH = 64
"""Characters of a Series Description (LO, PS3.5 table 6.2-1); a sender may exceed them."""


def summary(record: ReportRecord, listed: Sequence[SliceScore] = ()) -> Iterator[Item]:
    """Say the report in sentences, one item each. listed: slices with a group of their own.

    Raises Permanent where the stored attributes are no data set.
    """
    a = record.assessment
    yield text(codes.SUMMARY, _found(record))
    if a.outcome is Outcome.ASSESSED:
        stack = deciding_stack(a)
        yield text(codes.WHY, _why(a, stack))
        yield text(codes.HOW_SURE, how_sure(a))
        evidence = {item.sop_uid: item for item in record.evidence}
        yield text(codes.WHERE_TO_LOOK, _where(stack, listed, evidence))
    if record.before:
        yield text(codes.SUPERSEDES, " ".join(_supersedes(one, a) for one in record.before))


def short(a: Assessment) -> Iterator[str]:
    """Say verdict, flag and doubt in words that fit beside an image."""
    yield f"{DESCRIPTIONS[verdict_of(a)]}{', flagged' if a.flagged else ''}"
    if a.confidence is Confidence.LOW_CONFIDENCE:
        yield "Low confidence"


def place(item: SliceScore, evidence: Mapping[str, EvidenceInstance]) -> str:
    """Say where a slice is found: "image 63 at -5.5 mm"; the number is the viewer's."""
    number = evidence[item.sop_uid].instance_number if item.sop_uid in evidence else None
    said = "the slice" if number is None else f"image {number}"
    if item.frame is not None:
        said += f" frame {item.frame}"
    return said if item.position_mm is None else f"{said} at {item.position_mm:.1f} mm"


def plain_number(value: float) -> str:
    """Write a number as the audit has it, without zeros at its end: 2.5, not 2.5000."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _found(record: ReportRecord) -> str:
    a, series = record.assessment, _series(record)
    by = "Found by a program; no person has verified it."
    if a.outcome is not Outcome.ASSESSED:
        why = a.reason.sentence if a.reason else "No reason is stated."
        did = "was not assessed" if a.outcome is Outcome.NOT_ASSESSED else "could not be assessed"
        return f"The image quality of {series} {did}, and no score exists. {why} {by}"
    stack = deciding_stack(a)
    flag = "It is flagged to be looked at again." if a.flagged else "It is not flagged."
    several = ""
    if a.deciding_stack is not None and len(a.stacks) > 1:
        several = (
            f"The series has {len(a.stacks)} stacks; the sentences of this report speak of the one "
            f"that decided ({prose.stack_name(a, a.deciding_stack)}). "
        )
    return (
        f"The image quality of {series} is {WORDS[verdict_of(a)]}. {flag} The score is "
        f"{plain_number(score_of(stack))} on a scale from 0 (worst) to 4 (best), the median of "
        f"{stack.in_scope} slices. {several}{by}"
    )


def _series(record: ReportRecord) -> str:
    """Name the series as viewers list it, where anything of its description is left in ASCII.

    From what is kept with the verdict: a later version of an image would change the bytes.
    """
    found = split(record.attributes)
    number = decoded(found, SERIES_NUMBER)
    is_number = re.fullmatch(r"[+-]?\d{1,11}", number, re.ASCII)  # IS, PS3.5 table 6.2-1
    said = f"CT series {int(number)}" if is_number else "this CT series"
    name = plain(decoded(found, SERIES_DESCRIPTION)[:DESCRIPTION_LENGTH])
    return f'{said}, "{name}",' if re.search("[A-Za-z0-9]", name) else said


def _why(a: Assessment, stack: StackSummary) -> str:
    c = a.criteria
    share = ""
    if stack.below_threshold is not None:
        percent = plain_number(round(100 * stack.below_threshold, 2))
        share = f"{percent} % of the slices score below {plain_number(c.diagnostic_from)}. "
    bounds = (
        f"A series is diagnostic from {plain_number(c.diagnostic_from)} and limited from "
        f"{plain_number(c.limited_from)}"
    )
    limit = c.flag_below
    flag = "every one" if limit is None else f"one with a score below {plain_number(limit)}"
    who = codes.POPULATIONS[c.population].meaning.lower()
    return f"{share}{bounds}; {flag} is flagged. These are the criteria for {who} of: {c.owner}."


def how_sure(a: Assessment) -> str:
    """Say whether the verdict is sure, why it is not, and between what bounds the score lies."""
    sure = "The verdict is confident."
    if a.confidence is Confidence.LOW_CONFIDENCE:
        reasons = " ".join(
            prose.unread(a) if reason is Reason.PARTLY_READ else reason.sentence
            for reason in a.confidence_reasons
        )
        sure = f"The verdict is of low confidence. {reasons}".strip()
    elif a.confidence is None:
        sure = "How sure the verdict is was not determined."
    if a.interval is None:
        return sure
    low, high = a.interval
    return f"{sure} 90 % interval of the score: {plain_number(low)} to {plain_number(high)}."


def _where(
    stack: StackSummary,
    listed: Sequence[SliceScore],
    evidence: Mapping[str, EvidenceInstance],
) -> str:
    worst = lowest(stack)
    score = plain_number(score_of(worst))
    said = f"The lowest score, {score}, is that of {place(worst, evidence)}."
    if listed:
        after = "; ".join(place(item, evidence) for item in listed)
        said += f" Then, worst first: {after}."
    return said


def _supersedes(before: EarlierVerdict, a: Assessment) -> str:
    if before.verdict is None and before.outcome is Outcome.ASSESSED:
        raise contradiction("the report before it is ASSESSED without a verdict")
    what = DESCRIPTIONS[before.verdict or before.outcome]
    said = (
        "This report takes the place of what was said of revision "
        f"{before.revision_number}: {what}.{_other_criteria(before, a)}"
    )
    if not before.flagged:
        return said
    said += f' Its Key Object Selection "CT quality issue: {what}" '
    if a.outcome is not Outcome.ASSESSED:  # nothing was found out that could lift the flag
        return (
            f"{said}was made of an earlier state of the series; this revision could not be judged: "
            "look at the images."
        )
    now = "that of this report does" if a.flagged else "the series is no longer flagged"
    return f"{said}no longer holds; {now}."


def _other_criteria(before: EarlierVerdict, a: Assessment) -> str:
    """Say what of the criteria changed between two verdicts, which may be all that changed."""
    if before.criteria is None or before.verdict is None or a.verdict is None:
        return ""
    then, now = _terms(before.criteria), _terms(a.criteria)
    changed = [f"{name} {then[name]}, now {now[name]}" for name in now if then[name] != now[name]]
    return f" It was judged by other criteria: {'; '.join(changed)}." if changed else ""


def _terms(c: CriteriaInForce) -> dict[str, str]:
    return {
        "diagnostic from": plain_number(c.diagnostic_from),
        "limited from": plain_number(c.limited_from),
        "flagged at or below": DESCRIPTIONS[c.flag_at],
        "slices needed": str(c.min_slices),
        "for": codes.POPULATIONS[c.population].meaning.lower(),
        "owner": c.owner,
    }
