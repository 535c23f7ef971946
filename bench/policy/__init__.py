"""A simulator of policies: the real cores on virtual time, engines by published figures, traces of requests.

`make bench-policy [TRACE=file.csv]` prints one table: every policy on every trace, the same seeds for all.
"""
