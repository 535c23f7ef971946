"""GPUs, memory, shared memory, limits: what this machine gives to engines."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vllama import sources
from vllama.cli.doctor.finding import Finding, broken, note, ok
from vllama.cli.render import size

if TYPE_CHECKING:
    from vllama.host.nvml import Driver

SHM = Path("/dev/shm")
RAM_LEAST_BYTES = 2 * 2**30
SHM_LEAST_BYTES = 2**30  # a container's default of 64 MiB is too little for more ranks than one
FILES_LEAST = 4096  # each request that goes on is two connections


def gpus() -> tuple[int | None, list[Finding]]:
    """How many GPUs a working driver shows, None without a driver; and what there is to say."""
    from vllama.host.nvml import Driver, NoDriver

    try:
        driver = Driver()
    except NoDriver as error:
        there = Path("/proc/driver/nvidia").exists() or "does not work" in str(error)
        if there:
            return 0, [broken("gpu", str(error), "mend the driver; `nvidia-smi` must list the GPUs")]
        return None, [ok("gpu", str(error))]
    try:
        nvml, found = driver.nvml, []
        version = _version(driver)
        for index, handle in driver.devices():
            try:
                name, memory = _text(nvml.nvmlDeviceGetName(handle)), nvml.nvmlDeviceGetMemoryInfo(handle)
                found.append(
                    ok("gpu", f"{index}: {name}, {size(int(memory.total))}, {size(int(memory.free))} free")
                )
            except driver.error as error:
                found.append(broken("gpu", f"{index}: NVML says {error}", "`nvidia-smi` says more"))
        count = sum(each.state == "ok" for each in found)
        if not found:
            mend = "give the container GPUs (docker run --gpus all), or use the CPU build"
            return 0, [note("gpu", f"the NVIDIA driver ({version}) shows no GPU", mend)]
        return count, [ok("driver", f"NVIDIA, {version}"), *found]
    except driver.error as error:
        return 0, [broken("gpu", f"NVML says {error}", "`nvidia-smi` says more")]
    finally:
        driver.close()


def _version(driver: "Driver") -> str:
    try:
        return f"version {_text(driver.nvml.nvmlSystemGetDriverVersion())}"
    except driver.error as error:
        return f"its version is not told ({error})"


def machine() -> Iterator[Finding]:
    """RAM, shared memory, limits."""
    from vllama.host.devices import ram_available_bytes, ram_total_bytes

    total, available = ram_total_bytes(), ram_available_bytes()
    says = f"{size(total)}, {size(available)} available"
    if available < RAM_LEAST_BYTES:
        yield note(
            "ram",
            says,
            "end what takes it, or give the container more: an engine takes 1 GiB and its weights",
        )
    else:
        yield ok("ram", says)
    yield from _shm()
    if why := sources.why_interpreted():
        fix = "`make compiled` in a clone, else install vllama again where a C compiler is: a request costs a third less"
        yield note("data path", f"it runs from its sources: {why}", fix)
    else:
        yield ok("data path", "compiled")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # the server takes as many as it may
    if most != resource.RLIM_INFINITY and most < FILES_LEAST:
        fix = f"raise the hard limit to {FILES_LEAST} or more (`ulimit -Hn`, LimitNOFILE= of a service)"
        yield note("files", f"at most {most} files may be open", fix)
    else:
        yield ok("files", "no limit" if most == resource.RLIM_INFINITY else f"{most} may be open")


def _shm() -> Iterator[Finding]:
    try:
        found = os.statvfs(SHM)
    except OSError as error:
        yield broken("shm", f"{SHM} is not there ({error.strerror})", f"mount -t tmpfs tmpfs {SHM}")
        return
    total, free = found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail
    says = f"{SHM}: {size(total)}, {size(free)} free"
    if not os.access(SHM, os.W_OK):
        yield broken("shm", f"{SHM} cannot be written", f"chmod 1777 {SHM}")
    elif free < SHM_LEAST_BYTES:
        yield note(
            "shm", says, "start the container with --ipc=host or --shm-size=8g: engines talk through it"
        )
    else:
        yield ok("shm", says)


def _text(name: object) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
