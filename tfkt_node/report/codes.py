"""Every code that the node writes, in one table each; the conformance statement lists the same.

Standard codes come from PS3.16 (DCM, SCT, LN, RADLEX, UCUM). Where nothing fits there is the
private scheme 99TFKT: its values are short, are never reused, and keep their meaning for ever.
Meanings stay under 64 characters (LO); measurement names under 31, because viewers print them
beside the image.
"""

from __future__ import annotations

from pydicom.sr.coding import Code

from tfkt_node.records import Confidence, Outcome, Population, Reason, Verdict

SCHEME = "99TFKT"
SCHEME_VERSION = "1"
SCHEME_NAME = "tfkt-node codes for CT image quality"
SCHEME_ORGANIZATION = "tfkt-node"

# --------------------------------------------------------------------------- frame of the tree

IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH = Code("en", "RFC5646", "English")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
# The same value reads "CT Report" in CID 7000, hence the meaning of CID 100 spelled out.
CT_PROCEDURE = Code("25045-6", "LN", "CT unspecified body region")
OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
DEVICE = Code("121007", "DCM", "Device")
DEVICE_UID = Code("121012", "DCM", "Device Observer UID")
DEVICE_NAME = Code("121013", "DCM", "Device Observer Name")
DEVICE_MANUFACTURER = Code("121014", "DCM", "Device Observer Manufacturer")
DEVICE_MODEL = Code("121015", "DCM", "Device Observer Model Name")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
FINDING = Code("121071", "DCM", "Finding")
IMAGE_QUALITY_ANALYSIS = Code("133887000", "SCT", "Image quality analysis")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
IMAGE_REGION = Code("111030", "DCM", "Image Region")
SOURCE = Code("260753009", "SCT", "Source")
COMMENT = Code("121106", "DCM", "Comment")
SUMMARY = Code("121111", "DCM", "Summary")

# --------------------------------------------------------------------------- key objects

QUALITY_ISSUE = Code("113010", "DCM", "Quality Issue")
TITLE_MODIFIER = Code("113011", "DCM", "Document Title Modifier")
IMAGE_ARTIFACTS = Code("111207", "DCM", "Image artifact(s)")
KEY_OBJECT_DESCRIPTION = Code("113012", "DCM", "Key Object Description")

# --------------------------------------------------------------------------- names of values

# A score is a rating in the words of the standard, and a stack a set of images.
STACK_SCORE = Code("111694", "DCM", "Image Set Quality Rating")
SLICE_SCORE = Code("111029", "DCM", "Image Quality Rating")
SERIES_QUALITY = Code("130550", "DCM", "Imaging Series Quality")
SLICE_SPACING = Code("112226", "DCM", "Spacing between slices")
WATER_EQUIVALENT_DIAMETER = Code("113980", "DCM", "Water Equivalent Diameter")
CTDI_VOL = Code("113830", "DCM", "Mean CTDIvol")
SSDE = Code("113930", "DCM", "Size Specific Dose Estimate")


def _own(value: str, meaning: str) -> Code:
    return Code(value, SCHEME, meaning)


TEXT_REPORT = _own("T001", "CT Image Quality Report")
OUTCOME_SECTION = _own("T002", "Result")
STACKS_SECTION = _own("T003", "Stacks without a score")
METHOD_SECTION = _own("T004", "Method")
WHY = _own("T005", "Why")
HOW_SURE = _own("T006", "How sure")
WHERE_TO_LOOK = _own("T007", "Where to look")
SUPERSEDES = _own("T008", "Takes the place of")

LOWEST_SCORE = _own("N001", "Lowest slice score")
TENTH_PERCENTILE = _own("N002", "10th percentile of scores")
BELOW_THRESHOLD = _own("N003", "Slices below threshold")
INTERVAL_LOW = _own("N004", "90 % interval, low")
INTERVAL_HIGH = _own("N005", "90 % interval, high")
SLICES_IN_SCOPE = _own("N006", "Slices in scope")
SLICES_OUT_OF_SCOPE = _own("N007", "Slices out of scope")
COVERAGE_GAPS = _own("N008", "Coverage gaps")
REPEATED_POSITIONS = _own("N009", "Repeated positions")
GLOBAL_NOISE = _own("N010", "Global noise")
DIAGNOSTIC_FROM = _own("N011", "Diagnostic from")
LIMITED_FROM = _own("N012", "Limited from")
MINIMUM_SLICES = _own("N013", "Slices needed")
FINE_TO_COARSE = _own("N014", "Noise, fine to coarse")
STREAK_INDEX = _own("N015", "Streak index")
LOWEST_POSITION = _own("N016", "Position of lowest slice")
NOT_LISTED = _own("N017", "Slices not listed")
EXTENT = _own("N018", "Extent, first to last slice")

FLAG = _own("Q001", "Flag")
CONFIDENCE = _own("Q002", "Confidence of verdict")
CONFIDENCE_REASON = _own("Q003", "Reason of low confidence")
FLAG_AT = _own("Q004", "Flagged at or below")
CRITERIA_FOR = _own("Q005", "Criteria for")
OUTCOME = _own("Q006", "Outcome")
REASON = _own("Q007", "Reason")
DETAIL = _own("Q008", "Detail")

# --------------------------------------------------------------------------- coded values

VERDICTS = {
    Verdict.DIAGNOSTIC: Code("RID12", "RADLEX", "Diagnostic quality"),
    Verdict.LIMITED: Code("RID13", "RADLEX", "Limited quality"),
    Verdict.NON_DIAGNOSTIC: Code("RID14", "RADLEX", "Non-diagnostic quality"),
}
"""CID 7036 Image Quality Assessment."""

FLAGS = {True: _own("V001", "Flagged"), False: _own("V002", "Not flagged")}

CONFIDENCES = {
    Confidence.CONFIDENT: _own("V003", "Confident"),
    Confidence.LOW_CONFIDENCE: _own("V004", "Low confidence"),
}

POPULATIONS = {
    Population.ADULT: _own("V005", "Adults"),
    Population.CHILD: _own("V006", "Children"),
}

OUTCOMES = {
    Outcome.ASSESSED: _own("V007", "Assessed"),
    Outcome.NOT_ASSESSED: _own("V008", "Not assessed"),
    Outcome.FAILED: _own("V009", "Failed"),
}

_REASON_VALUES = {
    Reason.NOT_CT: "R001",
    Reason.OWN_OBJECT: "R002",
    Reason.NO_PIXELS: "R003",
    Reason.UNREADABLE: "R004",
    Reason.UNDECODABLE: "R005",
    Reason.NO_RESCALE: "R006",
    Reason.NOT_HU: "R007",
    Reason.LOCALIZER: "R008",
    Reason.DERIVED_SECONDARY: "R009",
    Reason.NOT_AXIAL: "R010",
    Reason.NO_GEOMETRY: "R011",
    Reason.MATRIX: "R012",
    Reason.NO_BODY: "R013",
    Reason.HEAD: "R014",
    Reason.PHANTOM: "R015",
    Reason.KERNEL: "R016",
    Reason.TOO_FEW_SLICES: "R017",
    Reason.COVERAGE: "R018",
    Reason.AGE_UNKNOWN: "R019",
    Reason.INTERVAL: "R020",
    Reason.SCORER_CRASHED: "R021",
    Reason.SCORER_TIMEOUT: "R022",
    Reason.SCORER_ERROR: "R023",
    Reason.SUPERSEDED: "R024",
    Reason.FILE_MISSING: "R025",
    Reason.UNFAMILIAR: "R026",
    Reason.PHYSICS: "R027",
    Reason.IDENTITY: "R028",
    Reason.PARTLY_READ: "R029",
}

REASONS = {
    reason: _own(value, reason.sentence.removesuffix("."))
    for reason, value in _REASON_VALUES.items()
}

# --------------------------------------------------------------------------- units

# UCUM annotations: viewers print the unit's code after the number, and "1.96 1" reads as a fault.
SCORE_UNIT = Code("{score}", "UCUM", "score")
SLICES_UNIT = Code("{slices}", "UCUM", "slices")
PLACES_UNIT = Code("{places}", "UCUM", "places")
PERCENT = Code("%", "UCUM", "percent")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
MILLIMETRE = Code("mm", "UCUM", "millimeter")
MILLIGRAY = Code("mGy", "UCUM", "milligray")
RATIO = Code("{ratio}", "UCUM", "ratio")

PHYSICS = {
    "noise_hu": (GLOBAL_NOISE, HOUNSFIELD),
    "noise_fine_to_coarse": (FINE_TO_COARSE, RATIO),
    "streak_index": (STREAK_INDEX, RATIO),
    "water_equivalent_diameter_mm": (WATER_EQUIVALENT_DIAMETER, MILLIMETRE),
    "ctdi_vol_mgy": (CTDI_VOL, MILLIGRAY),
    "ssde_mgy": (SSDE, MILLIGRAY),
}
"""Measures of a stack that the report prints: name in `StackSummary.physics` -> concept, unit."""


def every_code() -> tuple[Code, ...]:
    """Return every code that the node writes, ordered by scheme and value."""
    found = {
        (code.scheme_designator, code.value): code
        for thing in list(globals().values())
        for code in _codes_in(thing)
    }
    return tuple(found[key] for key in sorted(found))


def private_codes() -> tuple[Code, ...]:
    """Return every code of the scheme 99TFKT, ordered by value."""
    return tuple(code for code in every_code() if code.scheme_designator == SCHEME)


def _codes_in(thing: object) -> list[Code]:
    if isinstance(thing, Code):  # a tuple too, so it is asked first
        return [thing]
    if isinstance(thing, dict):
        return [code for value in thing.values() for code in _codes_in(value)]
    if isinstance(thing, tuple):
        return [code for code in thing if isinstance(code, Code)]
    return []
