"""Makes the objects that go back to the PACS: Structured Report and Key Object Selection.

From an audit record and the settings `[report]`, a picture also from its worst slice; without
clock, database or network. The same of these give the same bytes, in any process and at any time,
while the versions of the node and of its libraries stay; a made object is therefore kept. What
cannot be made raises Permanent with the cure.
"""
