"""What travels between the stations: enums, frozen records and the small tree of errors.

Nothing here does any work, opens anything or imports another module of this package.

Errors::

    NodeError
    ├── Refused        the sender's fault; nothing is kept; carries a DIMSE status
    ├── SetAside       kept, but not to be scored; carries a Reason
    ├── Retriable      try again later
    ├── Permanent      never works as things stand; carries the cure
    └── Misconfigured  wrong settings or usage; the command exits with 2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfkt_node import __version__

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# --------------------------------------------------------------------------- classes and scope

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.2"
CT_CLASSES = frozenset({CT_IMAGE, ENHANCED_CT_IMAGE, LEGACY_ENHANCED_CT_IMAGE})
"""The three Storage classes whose instances belong to a revision; all others are set aside."""

IMPLEMENTATION_CLASS_UID = "2.25.141070058647968747430635987610693652429"
"""Names this software in associations and in the file meta information of all it writes."""
IMPLEMENTATION_VERSION_NAME = f"TFKT_NODE_{__version__}"[:16]


AXIAL_LIMIT_DEG = 35.0
"""Angle between slice normal and table axis up to which a plane counts as axial: gantries tilt up
to 30 degrees, coronal and sagittal planes lie at 90."""

PATIENT_AND_STUDY = (
    # Type 2: always there, if need be empty
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName",
    "PatientID", "PatientBirthDate", "PatientSex", "StudyID",
    # General Study
    "StudyDescription", "PhysiciansOfRecord", "PhysiciansOfRecordIdentificationSequence",
    "NameOfPhysiciansReadingStudy", "PhysiciansReadingStudyIdentificationSequence",
    "ReferringPhysicianIdentificationSequence", "ConsultingPhysicianName",
    "ConsultingPhysicianIdentificationSequence", "RequestingService",
    "RequestingServiceCodeSequence", "IssuerOfAccessionNumberSequence", "ProcedureCodeSequence",
    "ReasonForPerformedProcedureCodeSequence", "ReferencedStudySequence",
    # Patient
    "IssuerOfPatientID", "TypeOfPatientID", "IssuerOfPatientIDQualifiersSequence",
    "SourcePatientGroupIdentificationSequence", "GroupOfPatientsIdentificationSequence",
    "OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames", "PatientBirthTime",
    "PatientBirthDateInAlternativeCalendar", "PatientDeathDateInAlternativeCalendar",
    "PatientAlternativeCalendar", "EthnicGroup", "EthnicGroupCodeSequence", "PatientComments",
    "ReferencedPatientSequence", "ReferencedPatientPhotoSequence", "ResponsiblePerson",
    "ResponsiblePersonRole", "ResponsibleOrganization", "QualityControlSubject",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    # Patient Study
    "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "PatientAge", "PatientSize",
    "PatientSizeCodeSequence", "PatientBodyMassIndex", "MeasuredAPDimension",
    "MeasuredLateralDimension", "PatientWeight", "Occupation", "SmokingStatus",
    "AdditionalPatientHistory", "LastMenstrualDate", "AdmissionID", "IssuerOfAdmissionIDSequence",
    "ServiceEpisodeID", "ServiceEpisodeDescription", "IssuerOfServiceEpisodeIDSequence",
    "ReasonForVisit", "ReasonForVisitCodeSequence", "PatientSexNeutered", "MedicalAlerts",
    "Allergies", "PatientState",
    # Clinical Trial Subject, Clinical Trial Study
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "IssuerOfClinicalTrialProtocolID",
    "OtherClinicalTrialProtocolIDsSequence", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "IssuerOfClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "IssuerOfClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
    "IssuerOfClinicalTrialSubjectReadingID", "ClinicalTrialProtocolEthicsCommitteeName",
    "ClinicalTrialProtocolEthicsCommitteeApprovalNumber", "ClinicalTrialTimePointID",
    "IssuerOfClinicalTrialTimePointID", "ClinicalTrialTimePointDescription",
    "ClinicalTrialTimePointTypeCodeSequence", "ConsentForClinicalTrialUseSequence",
)  # fmt: skip
"""Keywords of the patient and study level (PS3.3 C.7.1, C.7.2) that the objects of a study share:
reception keeps them as received, the report copies them. All texts and sequences of these modules,
less those of animals: binary numbers would have to be decoded (Pregnancy Status is one)."""


class Reason(StrEnum):
    """Why something was not scored, or why a verdict is not sure. One sentence each."""

    sentence: str

    def __new__(cls, value: str, sentence: str) -> Reason:
        """Keep the sentence beside the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

    NOT_CT = "NOT_CT", "The instance is not a CT image."
    OWN_OBJECT = "OWN_OBJECT", "The object was made by this node and has come back."
    NO_PIXELS = "NO_PIXELS", "The instance has no pixel data."
    UNREADABLE = "UNREADABLE", "The data set cannot be read as DICOM."
    UNDECODABLE = "UNDECODABLE", "The pixel data cannot be decoded."
    NO_RESCALE = "NO_RESCALE", "No valid rescale slope and intercept give Hounsfield units."
    NOT_HU = "NOT_HU", "The values are not Hounsfield units."
    LOCALIZER = "LOCALIZER", "The image is a localizer."
    DERIVED_SECONDARY = "DERIVED_SECONDARY", "The image is a projection, a map or a screen capture."
    NOT_AXIAL = "NOT_AXIAL", "The image plane is not axial, or is not known."
    NO_GEOMETRY = "NO_GEOMETRY", "Position or pixel spacing is missing."
    MATRIX = "MATRIX", "The matrix is too small to be scored."
    NO_BODY = "NO_BODY", "No body fills enough of the image."
    HEAD = "HEAD", "The image shows a head; the model was trained on bodies."
    PHANTOM = "PHANTOM", "The image shows a phantom."
    UNFAMILIAR = "UNFAMILIAR", "The image is unlike all that the model was trained on."
    KERNEL = "KERNEL", "The reconstruction kernel is outside the model's scope."
    TOO_FEW_SLICES = "TOO_FEW_SLICES", "Too few slices are in scope for a sure verdict."
    COVERAGE = "COVERAGE", "Slices are missing or repeated in the stack."
    PARTLY_READ = "PARTLY_READ", "Slices that should have been scored could not be read."
    AGE_UNKNOWN = "AGE_UNKNOWN", "The age is not known; adult criteria were applied."
    INTERVAL = "INTERVAL", "The true score may well lie beyond the threshold of the flag."
    PHYSICS = "PHYSICS", "The noise measured does not fit the score."
    SCORER_CRASHED = "SCORER_CRASHED", "The scoring process ended unexpectedly each time."
    SCORER_TIMEOUT = "SCORER_TIMEOUT", "Scoring ran past its time limit each time."
    SCORER_ERROR = "SCORER_ERROR", "Scoring met an error of the node each time."
    SUPERSEDED = "SUPERSEDED", "Another version of the same instance was received later."
    IDENTITY = "IDENTITY", "The data set names another instance than the one it was sent as."
    FILE_MISSING = "FILE_MISSING", "The stored file of an instance is gone from the spool."


UNREAD = frozenset(
    {Reason.NO_PIXELS, Reason.UNREADABLE, Reason.UNDECODABLE, Reason.NO_RESCALE}
    | {Reason.NO_GEOMETRY, Reason.IDENTITY, Reason.FILE_MISSING, Reason.SCORER_ERROR}
)
"""Reasons of what may well have belonged into the score, had file, decoder and engine given it: the
verdict on the rest is not sure (PARTLY_READ). All others say that an image is out of scope."""


class Outcome(StrEnum):
    """How a revision ends (promise P4: in exactly one of these)."""

    ASSESSED = "ASSESSED"
    NOT_ASSESSED = "NOT_ASSESSED"
    FAILED = "FAILED"


class RevisionState(StrEnum):
    """Where a revision stands: OPEN while instances arrive, then STABLE, SCORING, an Outcome."""

    OPEN = "OPEN"
    STABLE = "STABLE"
    SCORING = "SCORING"
    ASSESSED = "ASSESSED"
    NOT_ASSESSED = "NOT_ASSESSED"
    FAILED = "FAILED"


class InstanceState(StrEnum):
    """What became of an instance with a row. RECEIVED is a file without a row yet."""

    INDEXED = "INDEXED"
    SCORED = "SCORED"
    NOT_ASSESSED = "NOT_ASSESSED"
    SET_ASIDE = "SET_ASIDE"


class Verdict(StrEnum):
    """The verdict of a series, from best to worst."""

    DIAGNOSTIC = "DIAGNOSTIC"
    LIMITED = "LIMITED"
    NON_DIAGNOSTIC = "NON_DIAGNOSTIC"

    @property
    def severity(self) -> int:
        """0 for DIAGNOSTIC, 2 for NON_DIAGNOSTIC: higher is worse."""
        return list(Verdict).index(self)


class Confidence(StrEnum):
    """Whether a verdict is sure; LOW_CONFIDENCE comes with a Reason."""

    CONFIDENT = "CONFIDENT"
    LOW_CONFIDENCE = "LOW_CONFIDENCE"


class Population(StrEnum):
    """Whose criteria apply."""

    ADULT = "ADULT"
    CHILD = "CHILD"


class ObjectKind(StrEnum):
    """An object that the node makes.

    ENHANCED_SR: the same report as an Enhanced SR, for destinations that take no other. PICTURE:
    a Secondary Capture that sums the report up.
    """

    SR = "SR"
    KOS = "KOS"
    ENHANCED_SR = "ENHANCED_SR"
    PICTURE = "PICTURE"


class ObjectState(StrEnum):
    """OWED with the verdict, then BUILT, or FAILED with a reason (retried by command).

    SUPERSEDED: never made, since the report of a later revision was made first.
    """

    OWED = "OWED"
    BUILT = "BUILT"
    FAILED = "FAILED"
    SUPERSEDED = "SUPERSEDED"


class DeliveryState(StrEnum):
    """One object on its way to one destination.

    COMMITTED: for destinations that do storage commitment, which the node does not ask for yet.
    """

    PENDING = "PENDING"
    SENT = "SENT"
    COMMITTED = "COMMITTED"
    DEAD = "DEAD"


class AssociationEnd(StrEnum):
    """How an association ended."""

    RELEASED = "RELEASED"
    ABORTED = "ABORTED"
    LOST = "LOST"


# --------------------------------------------------------------------------- reception


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An instance whose file lies in the spool, as reception knows it.

    digest: 64 hex digits, see `reception.instances.digest_of`. path: the file.
    """

    digest: str
    path: Path
    size_bytes: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    received_at: datetime
    association_id: str | None = None


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """What the index needs of a stored instance; '' where an attribute is missing or unreadable.

    attributes: the patient, study and request attributes that a report copies, and what it may say
    of series and scanner, encoded as an Explicit VR Little Endian data set with the source's own
    character set, values untouched.
    expected_count: Number of Series Related Instances (0020,1209) or Images in Acquisition
    (0020,1002), where the header tells.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    modality: str
    accession_number: str
    study_date: str
    series_description: str
    instance_number: int | None
    expected_count: int | None
    made_by_this_node: bool
    attributes: bytes


# --------------------------------------------------------------------------- slices


@dataclass(frozen=True, slots=True)
class InstanceRef:
    """One instance of a revision, as the scorer gets it."""

    path: Path
    digest: str
    sop_class_uid: str
    sop_uid: str


@dataclass(frozen=True, slots=True)
class SliceGeometry:
    """Where one slice lies. Patient coordinates (PS3.3 C.7.6.2.1.1), mm.

    frame: 1-based for multi-frame objects, None otherwise. normal: unit vector, row x column.
    position_mm: the origin along the normal. None: the header does not tell.
    image_type: Image Type, or the frame's own Frame Type. body_part: '' where unknown.
    ctdi_vol_mgy: CTDIvol, in the CTDI phantom of ctdi_phantom_mm diameter (320 body, 160 head).
    frame_of_reference: its UID. kvp: tube voltage, kV. stack_id, temporal_position: of Enhanced CT,
    or Temporal Position Identifier. is_stepped: the header tells that the table stood still.
    """

    instance: InstanceRef
    frame: int | None
    rows: int
    columns: int
    origin_mm: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    position_mm: float | None
    pixel_spacing_mm: tuple[float, float] | None
    slice_thickness_mm: float | None
    acquisition: str | None
    kernel: str | None
    image_type: tuple[str, ...]
    instance_number: int | None
    body_part: str = ""
    ctdi_vol_mgy: float | None = None
    ctdi_phantom_mm: float | None = None
    frame_of_reference: str | None = None
    kvp: float | None = None
    stack_id: str | None = None
    temporal_position: int | None = None
    is_stepped: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices of one revision that were scanned, or made, as one volume, in order.

    gaps: places where a slice seems to be missing. repeated: slices at positions that another
    slice holds. acquisition: its number; "1-24" where the table moved on after each of 24
    rotations. spacing_mm: median distance of neighbours; None for fewer than two positions.
    """

    acquisition: str | None
    orientation: str
    kernel: str | None
    slices: tuple[SliceGeometry, ...]
    spacing_mm: float | None
    gaps: int
    repeated: int


# --------------------------------------------------------------------------- score and verdict


@dataclass(frozen=True, slots=True)
class SliceScore:
    """What is known of one slice. Scores lie in 0..4, rounded to 4 decimals.

    position_mm: as viewers show it, z of Image Position (Patient) for an axial slice, mm.
    interval: (low, high), 90 %. outline: body box (left, top, right, bottom) in pixels.
    A slice out of scope has no score and a reason.
    """

    digest: str
    sop_uid: str
    frame: int | None
    position_mm: float | None
    score: float | None
    interval: tuple[float, float] | None
    in_scope: bool
    reason: Reason | None
    outline: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class StackSummary:
    """One stack, summed up over its in-scope slices (design 5). None: no slice in scope.

    score: median. p10: 10th percentile. minimum: the lowest-scoring slice. below_threshold:
    share 0..1 of slices under `diagnostic_from`. physics: name with unit -> value. gaps, repeated:
    as in Stack; None where they are not known, since a slice has no place.
    """

    acquisition: str | None
    orientation: str
    kernel: str | None
    rows: int
    columns: int
    score: float | None
    interval: tuple[float, float] | None
    p10: float | None
    minimum: SliceScore | None
    below_threshold: float | None
    in_scope: int
    out_of_scope: int
    gaps: int | None
    repeated: int | None
    spacing_mm: float | None
    physics: Mapping[str, float | None]
    slices: tuple[SliceScore, ...]


@dataclass(frozen=True, slots=True)
class InstanceOutcome:
    """What one instance of an assessed revision came to: SCORED or NOT_ASSESSED with a reason.

    detail: words for people, such as the transfer syntax that no decoder reads; no identifier.
    """

    digest: str
    state: InstanceState
    reason: Reason | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CriteriaInForce:
    """The thresholds a verdict was made with. digest names exactly these values."""

    population: Population
    diagnostic_from: float
    limited_from: float
    flag_at: Verdict
    min_slices: int
    owner: str
    digest: str

    @property
    def flag_below(self) -> float | None:
        """The score below which a series is flagged; None: every series is."""
        return {
            Verdict.DIAGNOSTIC: None,
            Verdict.LIMITED: self.diagnostic_from,
            Verdict.NON_DIAGNOSTIC: self.limited_from,
        }[self.flag_at]


@dataclass(frozen=True, slots=True)
class BundleInForce:
    """The model a score was made with, and the engine that ran it."""

    name: str
    version: str
    digest: str
    engine: str
    precision: str


@dataclass(frozen=True, slots=True)
class Assessment:
    """The outcome of one revision. Verdict, confidence and score exist only when ASSESSED.

    reason: why NOT_ASSESSED or FAILED. confidence_reasons: why LOW_CONFIDENCE.
    deciding_stack: index into `stacks` of the one that gave the verdict.
    """

    outcome: Outcome
    reason: Reason | None
    detail: str
    verdict: Verdict | None
    confidence: Confidence | None
    confidence_reasons: tuple[Reason, ...]
    flagged: bool
    score: float | None
    interval: tuple[float, float] | None
    deciding_stack: int | None
    stacks: tuple[StackSummary, ...]
    instances: tuple[InstanceOutcome, ...]
    criteria: CriteriaInForce
    bundle: BundleInForce | None


# --------------------------------------------------------------------------- audit and report


@dataclass(frozen=True, slots=True)
class ClaimedRevision:
    """A revision that this process holds the lease of, with its frozen list of instances.

    answers_earlier: whether an earlier revision of the series owed a report.
    """

    revision_id: int
    number: int
    attempts: int
    instances: tuple[InstanceRef, ...]
    attributes: bytes
    answers_earlier: bool


@dataclass(frozen=True, slots=True)
class EvidenceInstance:
    """An instance that a report references. instance_number: as people find it in a viewer."""

    sop_class_uid: str
    sop_uid: str
    instance_number: int | None = None


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The newest report of an earlier revision that was made, which a later one names."""

    sop_class_uid: str
    sop_uid: str
    series_uid: str


@dataclass(frozen=True, slots=True)
class EarlierVerdict:
    """What an earlier revision said of the series, whether or not its report could be made.

    criteria: those it was judged by, where they are not those of the report that answers it.
    """

    revision_number: int
    outcome: Outcome
    verdict: Verdict | None
    flagged: bool
    criteria: CriteriaInForce | None = None


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """All that the report needs, from the audit alone: the same record gives the same bytes.

    attributes: as in InstanceHeader, kept as they were when it was decided. decided_at: every time
    in the objects, in the zone of the study or, where that states none, in its own: UTC from the
    audit, then `report.timezone`.
    before: what this report takes back or confirms, newest first: the earlier revisions that owed a
    report, back to one that was assessed.
    predecessor: the report that this one supersedes; None where none could be made.
    node_uid: UID of this installation, the device observer.
    """

    verdict_id: str
    decided_at: datetime
    revision_number: int
    patient_id: str
    study_uid: str
    series_uid: str
    attributes: bytes
    assessment: Assessment
    evidence: tuple[EvidenceInstance, ...]
    before: tuple[EarlierVerdict, ...]
    predecessor: Predecessor | None
    node_uid: str
    software_version: str


@dataclass(frozen=True, slots=True)
class MadeObject:
    """A finished DICOM object: a Part 10 file in memory."""

    kind: ObjectKind
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    content: bytes


@dataclass(frozen=True, slots=True)
class ClaimedObject:
    """An owed object that this process holds the lease of.

    sha256: of its file, where it was made before and its file was lost; else None.
    """

    object_id: int
    kind: ObjectKind
    record: ReportRecord
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A delivery that this process holds the lease of. sha256: of the file, as it was made."""

    delivery_id: int
    destination: str
    attempts: int
    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """One line of `series list`: the newest revision of a series."""

    series_id: int
    study_uid: str
    series_uid: str
    accession_number: str
    study_date: str
    series_description: str
    calling_ae: str
    revision: int
    state: RevisionState
    instances: int
    last_arrival_at: datetime
    quiet_since: datetime
    decided_at: datetime | None
    verdict: Verdict | None
    confidence: Confidence | None
    score: float | None
    flagged: bool
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One line of `deliveries list`: a delivery, or an object that could not be made.

    A FAILED object that is owed to no destination has no delivery: no number, no destination and
    no state. object_error: why an object is FAILED, or not made yet; object_due_at: when it is
    tried again. waits_for: a delivery of an earlier revision of the series that has to end first.
    status, comment: of the destination's C-STORE response.
    """

    delivery_id: int | None
    destination: str
    kind: ObjectKind
    state: DeliveryState | None
    attempts: int
    next_attempt_at: datetime | None
    last_error: str
    sop_instance_uid: str
    verdict_id: str
    object_state: ObjectState
    object_error: str
    object_due_at: datetime | None
    waits_for: int | None
    status: int | None
    comment: str


# --------------------------------------------------------------------------- errors


RETRY_DELIVERIES = '`tfkt-node deliveries retry --all --reason "…"`'
"""How a cure ends after which a delivery or an object is to be tried again."""


class NodeError(Exception):
    """Base of all errors with a sentence for people. The message holds no identifier."""


class Refused(NodeError):
    """The sender's fault: nothing is kept. status: DIMSE status (PS3.4 table B.2-1)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class SetAside(NodeError):
    """Kept, but not to be scored."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(detail or reason.sentence)
        self.reason = reason
        self.detail = detail


class Retriable(NodeError):
    """It may work later."""


class Permanent(NodeError):
    """It will not work as things stand. cure: what a person can do."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


class Misconfigured(NodeError):
    """Wrong settings or usage. problems: one sentence each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
