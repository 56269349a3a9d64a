"What a measurement was made on: every benchmark of speed writes it beside its numbers."
import os
import platform
import resource
from contextlib import suppress
from importlib.metadata import version


def machine(*packages):
    "The processor, cores, memory, how many processes wanted a core, and versions: of Python, of torch, and of the packages named"
    cpu, memory_gb = platform.processor() or platform.machine(), None
    with suppress(OSError), open("/proc/cpuinfo") as f:
        cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), cpu)
    with suppress(ValueError, OSError, AttributeError):
        memory_gb = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return dict(cpu=cpu, cores=os.cpu_count(), memory_gb=memory_gb, load=round(os.getloadavg()[0], 2), system=platform.system(), python=platform.python_version(), **{p: version(p) for p in ("torch", *packages)})


def peak_bytes():
    "The largest memory that this process ever had; not by `ru_maxrss`, which counts what its parent held when it was started, unless there is nothing else"
    with suppress(OSError, StopIteration), open("/proc/self/status") as f:
        return 1024 * int(next(line for line in f if line.startswith("VmHWM")).split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
