"""The door and the spool: accepts associations and keeps every instance as received.

An instance answered 0x0000 is on disk and synced (P1), byte for byte (P2); nothing here decodes
pixels, and nothing waits for the database (P7).
"""
