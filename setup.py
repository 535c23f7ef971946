"""The modules on a warm request's way are compiled with mypyc where there is a C compiler; all runs without that too, slower.

Why, and what comes of it: design/decisions/compiled.md. Everything else about the package is in pyproject.toml.
"""

import os
import sys

from setuptools import Extension, setup

# Not core/instance_state.py: a compiled class forgets the types of what its fields hold, which a saved journal is read by.
# All of them or none: compiled, they know one another's insides.
COMPILED = [
    "vllama/actors/actor.py",
    "vllama/actors/admissions.py",
    "vllama/actors/core/descent.py",
    "vllama/actors/core/instance.py",
    "vllama/actors/journal.py",
    "vllama/actors/tally/histogram.py",
    "vllama/actors/tally/instance.py",
    "vllama/actors/tally/numbers.py",
    "vllama/actors/tally/tally.py",
    "vllama/actors/ticket.py",
    "vllama/api/engine_answer.py",
    "vllama/api/fast/chunks.py",
    "vllama/api/fast/common.py",
    "vllama/api/fast/front.py",
    "vllama/api/fast/head.py",
    "vllama/api/fast/passage.py",
    "vllama/api/fast/peek.py",
    "vllama/api/fast/wording.py",
    "vllama/api/handover.py",
    "vllama/api/kinds.py",
    "vllama/api/link.py",
    "vllama/api/links.py",
    "vllama/api/pace.py",
    "vllama/api/traffic.py",
    "vllama/names.py",
]
# An editable install is compiled by tools/compiling.py, which knows what is stale.
BUILDS = {"bdist_wheel", "build_ext"}


def extensions() -> list[Extension]:
    """None where mypyc is not there; each is left out by itself where the C compiler is not."""
    if os.environ.get("VLLAMA_PURE") or not BUILDS & set(sys.argv):
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        return []
    # Without pyproject.toml's settings and without other packages: a build has neither those nor mypy's plugins.
    flags = ["--config-file=", "--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent"]
    found = mypycify([*flags, *COMPILED], opt_level="3", debug_level="0", group_name="vllama.compiled")
    for extension in found:
        extension.optional = True
    return found


setup(ext_modules=extensions())
