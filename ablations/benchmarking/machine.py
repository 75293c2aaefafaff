"""The machine: what it is, and what it reaches in a matrix product and in a copy. These are the floors that stages are held against."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ablations.benchmarking.timing import now
from ablations.results.provenance import library_versions

_MATRIX = {"cpu": 2048, "cuda": 8192}
_COPY_BYTES = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}
_REPEATS = 5


@dataclass(frozen=True)
class Reach:
    """The best of several: operations a second (a product and a sum are two) in a square matrix product of `dtype`, bytes a second that a
    copy reads and writes."""

    flops: float
    bytes: float
    dtype: str

    def floor(self, flops: float, moved: float) -> float:
        """Seconds that something takes at least: by its operations, or by the bytes that it must move, whichever is longer."""
        return max(flops / self.flops, moved / self.bytes)


def reach_of(device: torch.device, dtype: torch.dtype) -> Reach:
    """What the device reaches, measured here."""
    kind = device.type if device.type in _MATRIX else "cpu"
    size = _MATRIX[kind]
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(_COPY_BYTES[kind] // 4, device=device, dtype=torch.float32).fill_(1.0)
    target = torch.empty_like(source)
    product = min(_seconds(lambda: left @ right, device) for _ in range(_REPEATS))
    copy = min(_seconds(lambda: target.copy_(source), device) for _ in range(_REPEATS))
    return Reach(2 * size**3 / product, 2 * source.nbytes / copy, str(dtype).removeprefix("torch."))


def _seconds(work: Any, device: torch.device) -> float:
    started = now(device)
    work()
    return now(device) - started


def description(device: torch.device) -> dict[str, Any]:
    """The processor, the device, threads and versions, as a table of results names them."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "versions": {name: version for name, version in library_versions().items() if version},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory_gb": round(properties.total_memory / 1e9, 1), "cuda": torch.version.cuda}
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.lower().startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({torch.backends.cpu.get_cpu_capability()})"
    return f"{platform.processor() or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def as_json(reach: Reach) -> dict[str, Any]:
    return asdict(reach)
