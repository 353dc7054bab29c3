"""Made-up machines for the doctor: folders with packages, shared libraries, cgroups and processors."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headway.cli.doctoring import elf, loader
from headway.cli.doctoring.environment import Disk, Environment, Kernels

GB = 10**9


class Machine:
    """One machine, written into a folder piece by piece."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site, self.proc = folder / "site", folder / "proc"
        self.site.mkdir(parents=True)
        (self.proc / "self").mkdir(parents=True)
        self.variables: dict[str, str] = {}

    def environment(self, **facts: Any) -> Environment:
        """Its facts; nothing of the real machine is among them."""
        given = {
            "site": (self.site,),
            "variables": self.variables,
            "proc": self.proc,
            "cgroup": self.folder / "cgroup",
            "linker_cache": self.folder / "ld.so.cache",
            "libraries": (self.folder / "lib",),
            "affinity": 4,
            "processors": 4,
            "kernels": Kernels("avx2", ("scalar", "avx2")),
            "disks": (Disk("working folder", self.folder / "work", 50 * GB),),
        }
        return Environment(**(given | facts))

    def processor(self, flags: str) -> None:
        (self.proc / "cpuinfo").write_text(f"model name\t: Made Up 9000\nflags\t\t: fpu {flags}\n")

    def package(
        self,
        name: str,
        version: str,
        files: Mapping[str, bytes] | None = None,
        requires: Sequence[str] = (),
        extras: Sequence[str] = (),
    ) -> Path:
        """Install a package as pip does; returns its .dist-info folder."""
        info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in requires] + [f"Provides-Extra: {e}" for e in extras]
        (info / "METADATA").write_text(
            "\n".join([*lines, "", "Requires-Dist: nothing; this is the description"])
        )
        for path, content in (files or {}).items():
            self.write(path, content)
        record = [f"{path},sha256=x,{len(content)}" for path, content in (files or {}).items()]
        (info / "RECORD").write_text("\n".join([*record, f"{info.name}/RECORD,,"]) + "\n")
        return info

    def write(self, path: str, content: bytes) -> Path:
        """A file among the packages."""
        place = self.site / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return place

    def library(self, path: str, needed: Sequence[str] = (), **paths: str) -> Path:
        """A shared library anywhere on the machine."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(library(needed, **paths))
        return place

    def driver(self, version: str, gpus: int = 1) -> None:
        """NVIDIA's kernel module, and its library beside the system's."""
        place = self.proc / "driver" / "nvidia"
        place.mkdir(parents=True)
        (place / "version").write_text(
            f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Thu Jan  1 00:00:00 UTC 2026\n"
            "GCC version:  gcc version 12.3.0\n"
        )
        for i in range(gpus):
            (place / "gpus" / str(i)).mkdir(parents=True)
            (place / "gpus" / str(i) / "information").write_text("Model: \t\t NVIDIA Made Up\nIRQ: 1\n")
        self.driver_library(version)

    def driver_library(self, version: str) -> None:
        real = self.library(f"lib/libcuda.so.{version}")
        (real.parent / "libcuda.so.1").unlink(missing_ok=True)
        (real.parent / "libcuda.so.1").symlink_to(real.name)


def library(needed: Sequence[str] = (), *, rpath: str = "", runpath: str = "") -> bytes:
    """The least file that the loader would take for a shared library: two segments, strings, a dynamic section.

    Its strings lie elsewhere in memory than in the file, as they do in real ones.
    """
    strings, entries = b"\0", list[tuple[int, int]]()
    wanted = [(elf.NEEDED, name) for name in needed]
    wanted += [(tag, text) for tag, text in ((elf.RPATH, rpath), (elf.RUNPATH, runpath)) if text]
    for tag, text in wanted:
        entries.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    start, base = elf.HEADER.size + 2 * elf.SEGMENT.size, 0x10000
    entries += [(elf.STRINGS, base + start), (elf.STRINGS_SIZE, len(strings)), (elf.END, 0)]
    padded = strings + b"\0" * (-len(strings) % 8)
    dynamic = b"".join(elf.ENTRY.pack(*entry) for entry in entries)
    size, at = start + len(padded) + len(dynamic), start + len(padded)
    head = elf.HEADER.pack(
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"), 3, 62, 1, 0, elf.HEADER.size, 0, 0, 64, 56, 2, 64, 0, 0
    )
    segments = elf.SEGMENT.pack(elf.LOAD, 4, 0, base, base, size, size, 0x1000)
    segments += elf.SEGMENT.pack(elf.DYNAMIC, 4, at, base + at, base + at, len(dynamic), len(dynamic), 8)
    return head + segments + padded + dynamic


def linker_cache(places: Mapping[str, str]) -> bytes:
    """An ld.so.cache, behind an older one as many systems write it."""
    strings, entries = b"", b""
    begin = loader.HEAD.size + len(places) * loader.ENTRY.size
    for name, path in places.items():
        at = begin + len(strings)
        strings += name.encode() + b"\0" + path.encode() + b"\0"
        entries += loader.ENTRY.pack(0x303, at, at + len(name) + 1, 0, 0)
    head = loader.MAGIC + struct.pack("<II20x", len(places), len(strings))
    return b"ld.so-1.7.0\0\0\0\0\0" + head + entries + strings


def onnxruntime(
    name: str = "onnxruntime",
    needed: Mapping[str, Sequence[str]] | None = None,
    cuda: str = "",
    padding: int = 0,
) -> dict[str, bytes]:
    """Files of a build; `needed`: what each of its providers' files needs, `padding`: bytes that tell builds apart."""
    about = f"package_name = '{name}'\n__version__ = '1'\n" + (f"cuda_version = '{cuda}'\n" if cuda else "")
    files = {
        "onnxruntime/__init__.py": b"# " + b"x" * padding,
        "onnxruntime/capi/build_and_package_info.py": about.encode(),
        "onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so": library()
        + b"\0" * padding,
        "onnxruntime/capi/libonnxruntime_providers_shared.so": library(),
    }
    for provider, names in (needed or {}).items():
        files[f"onnxruntime/capi/libonnxruntime_providers_{provider}.so"] = library(names)
    return files
