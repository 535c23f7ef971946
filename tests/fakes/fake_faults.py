"""What a fake engine does wrong, chosen from outside: FAKE_VLLM_FAULTS, and the file that FAKE_VLLM_FAULTS_FILE names.

Entries are separated by commas or lines: `[once:][MODEL:]NAME[=NUMBER]`, for example `tiny/qwen3:die_at_start` or
`once:profiling_error`. The file is read again at every question, so a test changes its mind by writing it; an entry
that begins with `once:` is struck out of the file when it strikes.

Starting:  die_at_start core_fails hang_at_start slow_start_s=N profiling_error oom_at_start port_taken
           sleep_mode_oom (out of memory, if started with sleep mode) hang_loading (with its children)
           hold_profile (on a fake GPU, between the two looks at its memory, until it is taken back)
Serving:   die_on_first_request die_mid_stream token_s=N gated (every generation waits at the gate "all")
           gated_metrics (who asks for them waits at the gate "metrics") broken_metrics (lines that are none)
Sleeping:  fail_sleep sleep_lies hang_sleep crash_on_request_asleep keep_memory leak_bytes=N
           hold_sleep (until it is taken back)
Waking:    fail_wake hang_wake fail_reload garbage (after any wake)
Process:   ignore_term children=N
"""

import os
import re

_ENTRY = re.compile(r"^(once:)?(?:(.+):)?([a-z_0-9]+)(?:=([0-9.]+))?$")


class Faults:
    def __init__(self, model: str) -> None:
        self._model = model
        self._fixed = os.environ.get("FAKE_VLLM_FAULTS", "")
        self._file = os.environ.get("FAKE_VLLM_FAULTS_FILE", "")
        self._struck: set[str] = set()

    def __call__(self, name: str) -> float:
        """The fault's number (1 when it has none), 0 when it is not chosen for this model."""
        for source, text in (("env", self._fixed), ("file", self._read())):
            for entry in filter(None, map(str.strip, re.split(r"[,\n]", text))):
                match = _ENTRY.match(entry)
                if match is None:
                    raise SystemExit(f"fake_vllm: unknown fault {entry!r}")
                once, model, fault, number = match.groups()
                if fault != name or model not in (None, self._model) or (source, entry) in self._struck:
                    continue
                if once:
                    self._strike_out(source, entry)
                return float(number) if number else 1.0
        return 0.0

    def _read(self) -> str:
        if not self._file:
            return ""
        try:
            with open(self._file, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def _strike_out(self, source: str, entry: str) -> None:
        if source == "env":
            self._struck.add((source, entry))
            return
        left = [line for line in re.split(r"[,\n]", self._read()) if line.strip() and line.strip() != entry]
        with open(self._file, "w", encoding="utf-8") as file:
            file.write("\n".join(left))
