"""One more state of an object: SUPERSEDED, for one that a later report came before."""

from tfkt_node.audit import checks

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    checks.change(
        "objects",
        "state",
        "state IN ('OWED', 'BUILT', 'FAILED')",
        "state IN ('OWED', 'BUILT', 'FAILED', 'SUPERSEDED')",
    )
