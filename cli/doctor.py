"""headway doctor: what this machine can do, what is missing, and the command that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from headway.cli.doctoring import environment
from headway.cli.doctoring.base import Finding, findings
from headway.core import files
from headway.core.errors import HeadwayError

MARKS = {"fine": " ", "advice": "!", "prevents": "✗"}


def doctor(
    bundle: Path | None = None, /, *, json: Annotated[str, Parameter(allow_leading_hyphen=True)] | None = None
) -> None:
    """Show what this machine can do, with a remedy for each trouble. Ends with 5 where something needed is missing.

    Parameters
    ----------
    bundle
        folder that `headway export` wrote, or OWNER/NAME@COMMIT on the hub: whether and how it runs here
    json
        file for the findings, - for standard output
    """
    if json is not None:
        files.refuse_unwritable_file(json)
    found = list(findings(environment.here(_located(bundle))))
    errors = [finding.error for finding in found if finding.error is not None]
    worst = max(errors, key=lambda error: error.exit_code, default=None)
    if json is not None:
        with files.whole_file(json) as stream:
            stream.write(_json(found, worst) + "\n")
    if json != "-":
        print(text(found))
    if worst is not None:
        raise worst


def _located(bundle: Path | None) -> Path | None:
    if bundle is None:
        return None
    from headway.core import hub  # brings numpy

    return hub.located(bundle)


def text(found: Sequence[Finding]) -> str:
    """The report: a line a finding, its mark before it, its remedy below."""
    width = max((len(finding.subject) for finding in found), default=0) + 2
    lines = []
    for finding in found:
        lines.append(f"{MARKS[finding.grade]} {finding.subject + ':':{width}}{finding.state}")
        if finding.remedy:
            lines.append(f"  {'':{width}}→ {finding.remedy}")
    count = {grade: sum(finding.grade == grade for finding in found) for grade in MARKS}
    work = f"{count['prevents']} prevent work" if count["prevents"] else "nothing prevents work"
    return "\n".join([*lines, "", f"{work}; {count['advice']} could be better"])


def _json(found: Sequence[Finding], worst: HeadwayError | None) -> str:
    content = {
        "exit_code": 0 if worst is None else worst.exit_code,
        "findings": [
            {"subject": f.subject, "grade": f.grade, "state": f.state, "remedy": f.remedy} for f in found
        ],
    }
    return msgspec.json.format(msgspec.json.encode(content)).decode()
