"""Room where files are written: the working folder, caches, temporary files."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from headway.cli.doctoring.base import Finding, prevents
from headway.cli.doctoring.environment import Disk, Environment

ROOM = 2e9
"""bytes that one training and export may need"""
LEAST = 1e8
"""bytes without which nothing can be written"""
ELSEWHERE = {
    "working folder": "cd /a/folder/of/yours",
    "cache": "export HF_HOME=/a/folder/of/yours",
    "temporary": "export TMPDIR=/a/folder/of/yours",
}


def findings(environment: Environment) -> Iterator[Finding]:
    for disk in environment.disks:
        yield _judged(disk)


def _judged(disk: Disk) -> Finding:
    elsewhere = ELSEWHERE.get(disk.use, "")
    if disk.path is None:
        state = f"there is no {disk.use}{' folder' * (disk.use == 'temporary')} that can be used"
        if disk.use == "temporary":
            return prevents("disk", state, elsewhere, "a temporary folder")
        return Finding("disk", state, elsewhere)
    state = f"{disk.free / 1e9:.1f} GB free in {disk.path} ({disk.use})"
    if not disk.writable:
        return Finding("disk", f"{disk.path} ({disk.use}) cannot be written", elsewhere)
    tidy = f"du -xh {quote(str(disk.path))} | sort -h | tail, and delete what is not needed; or {elsewhere}"
    if disk.free < LEAST and disk.use != "cache":
        return prevents("disk", state, tidy, f"room on the disk that holds {disk.path}")
    return Finding("disk", state, "" if disk.free >= ROOM else tidy)
