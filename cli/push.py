"""headway push: a bundle to a repository on a Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from headway.core import hub


def push(bundle: Path, name: str, /, *, public: bool = False) -> None:
    """Verify a bundle, upload it, and print the reference that opens it anywhere: OWNER/NAME@COMMIT.

    Parameters
    ----------
    bundle
        folder that `headway export` wrote
    name
        repository, as OWNER/NAME; made where there is none
    public
        let everyone read it
    """
    print(hub.push(bundle, name, private=not public))
