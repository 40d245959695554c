"""Brings the node's objects to destinations until they have them (promise P5).

What is owed stands in the audit store, so a restart goes on where it was; each destination has its
own turns, so a dead one delays no other.
"""
