"""Two more kinds of object: the report as an Enhanced SR, and a picture that sums it up."""

from tfkt_node.audit import checks

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    checks.change(
        "objects",
        "kind",
        "kind IN ('SR', 'KOS')",
        "kind IN ('SR', 'KOS', 'ENHANCED_SR', 'PICTURE')",
    )
