"""The floor under the stations: what the node knows, in one database, and the proof of it.

Every change of state is one transaction here; the events among them form a chain of hashes.
"""
