"""Makes the objects that go back to the PACS: Structured Report and Key Object Selection.

From an audit record alone, without clock, database or network: the same record gives the same
bytes, in any process and at any time. What cannot be made raises Permanent with the cure.
"""
