"""The garbage collector in a process that serves: what is loaded at the start is never looked at again.

Nearly all of a request is freed by reference counts. With Python's own thresholds a young collection came every sixty requests,
and an old one went through every module's objects each time (bench/RESULTS.md).
"""

import gc

THRESHOLDS = (10_000, 20, 20)


def spare_what_is_loaded() -> None:
    """Call it once, when everything is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
