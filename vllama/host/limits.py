"""How many files and connections this process, and what it starts, may have open."""

import contextlib
import resource

# Beyond this some programs that engines start go through every number that could be open.
FILES_MAX = 2**20


def allow_open_files() -> None:
    """As many as the system lets us: a request is two connections here, and a shell gives out 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it: then it stays as it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
