"""Section 1: what the machine is, what can be imported, and what of the system the package stands on."""

from __future__ import annotations

import array
import importlib
import importlib.metadata
import mmap
import multiprocessing
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from tests.gpu.place import Failed, Place

PAGES = 4
LIBRARIES = ("numpy", "scipy", "pandas", "pyarrow", "simpy", "pydantic", "typer", "rich", "ruamel.yaml", "torchvision")


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of facts; it fails where something is missing that every run needs."""
    yield {
        "what": "machine", "python": platform.python_version(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9), "kernel": platform.release(),
    }  # fmt: skip
    yield {"what": "GPUs", "found": _gpus() or "no GPU"}
    yield {"what": "libraries", **{name: _version(name) for name in LIBRARIES}}
    failed = list(_not_imported())
    yield {"what": "modules of the package that cannot be imported", "failed": failed}
    checks: dict[str, Callable[[], Any]] = {"memfd": _memfd, "descriptors": _descriptors}
    checks["fork server"] = lambda: _child(place)
    if place.gpu:
        checks |= {"registered": lambda: _registered(0), "registered read-only": lambda: _registered(8)}
    told: dict[str, Any] = {}
    for name, check in checks.items():
        try:
            told[name] = check() or "works"
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
    yield {"what": "system", **told}
    broken = [name for name in ("memfd", "descriptors", "fork server") if told[name] != "works"]
    if broken or failed:
        raise Failed(f"needed and not there: {', '.join([*broken, *failed])}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> list[dict[str, Any]]:
    if shutil.which("nvidia-smi") is None:
        return []
    keys = ("name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.mem", "power.draw")
    command = ["nvidia-smi", f"--query-gpu={','.join(keys)}", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    lines = said.stdout.splitlines() if said.returncode == 0 else []
    return [dict(zip(keys, map(str.strip, line.split(",")), strict=False)) for line in lines]


def _not_imported() -> Iterator[str]:
    """Every module but the one that only the fork server may import, and what needs an extra."""
    import asgd_lab

    root = Path(asgd_lab.__file__).parent
    for path in sorted(root.rglob("*.py")):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        if name in ("asgd_lab.backends.real.fork_server", "asgd_lab.figures.scalars"):
            continue
        try:
            importlib.import_module(name)
        except Exception as error:
            yield f"{name}: {type(error).__name__}: {error}"


def _memory() -> tuple[int, mmap.mmap]:
    descriptor = os.memfd_create("gpu-machine", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, PAGES * mmap.PAGESIZE)
    return descriptor, mmap.mmap(descriptor, PAGES * mmap.PAGESIZE)


def _memfd() -> None:
    descriptor, written = _memory()
    written[:4] = b"abcd"
    read = mmap.mmap(descriptor, PAGES * mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
    os.close(descriptor)
    if read[:4] != b"abcd":
        raise OSError("two mappings of a memfd differ")


def _descriptors() -> None:
    one, other = socket.socketpair()
    descriptor, _ = _memory()
    with one, other:
        one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
        _, ancillary, _, _ = other.recvmsg(1, socket.CMSG_SPACE(4))
    (received,) = array.array("i", ancillary[0][2])
    if os.fstat(received).st_ino != os.fstat(descriptor).st_ino:
        raise OSError("another file has arrived")
    os.close(received)
    os.close(descriptor)


def _child(place: Place) -> None:
    """A child of the fork server computes on the device."""
    from asgd_lab.backends.real.preload import without_main

    child = multiprocessing.get_context("forkserver").Process(target=_compute, args=(str(place.device),))
    with without_main():
        child.start()
    child.join(60)
    if child.exitcode != 0:
        child.kill()
        raise OSError(f"a child of the fork server ended with {child.exitcode}")


def _compute(device: str) -> None:
    sys.exit(0 if float(torch.ones(1000, device=device).sum()) == 1000.0 else 1)


def _registered(flags: int) -> str:
    """What CUDA says to registering shared memory: mapped for writing, or read-only."""
    descriptor, written = _memory()
    read = mmap.mmap(descriptor, PAGES * mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ) if flags else written
    vector = torch.frombuffer(read, dtype=torch.uint8)
    runtime: Any = torch.cuda.cudart()
    result = runtime.cudaHostRegister(vector.data_ptr(), vector.nbytes, flags)
    os.close(descriptor)
    if int(result):
        return f"refused: {int(result)}, {runtime.cudaGetErrorString(result)}"
    pinned = vector.is_pinned()
    runtime.cudaHostUnregister(vector.data_ptr())
    return f"works, {'pinned' if pinned else 'not pinned'} to torch"
