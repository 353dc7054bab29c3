"""Entry point: parse, run one verb, turn errors into one line and an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from importlib.metadata import version
from types import FrameType

import cyclopts

from headway.cli import streams
from headway.core import files
from headway.core.errors import HeadwayError, OutputError, UnavailableError

VERBS = {
    "train": "Fine-tune a pretrained model and write a checkpoint.",
    "evaluate": "Measure a checkpoint or a bundle on labelled data.",
    "export": "Turn a checkpoint into a bundle of proven variants.",
    "engines": "Build a bundle's TensorRT engines ahead.",
    "predict": "Predict every record of a file with a bundle.",
    "bench": "Measure a bundle's speed and memory, beside peers.",
    "tune": "Find how to run a bundle here for a latency and a rate.",
    "index": "Build, change, search and cluster an index of passages.",
    "run": "Train and evaluate as a recipe says.",
    "push": "Upload a bundle to a Hugging Face Hub.",
    "inspect": "Verify a bundle and show what it is.",
    "doctor": "Show what this machine can do and what is missing.",
    "demo": "The whole job on a small real case, offline.",
}

NO_TEMPORARY = "temporary directory"
"""in messages of Python, matplotlib and others where there is no folder for temporary files"""

app = cyclopts.App(
    name="headway",
    version=lambda: version("headway"),
    help="Fine-tuned transformers to production: train, export with proof, predict, measure.",
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # `run` answers it
)
for verb, about in VERBS.items():
    app.command(f"headway.cli.{verb}:{verb}", name=verb, help=about)


def main() -> None:
    """Run the command line and leave with DESIGN's exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit code. Nothing but a bug shows a traceback."""
    streams.prepare()
    _quiet_libraries()
    signal.signal(signal.SIGTERM, _terminate)
    code = _run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone: no more words
        streams.give_up(sys.stdout)
    except OSError as error:
        streams.give_up(sys.stdout)
        if code == 0:
            failed = OutputError.of(files.STANDARD_OUTPUT, error)
            code = _fail(str(failed), failed.exit_code)
    return code


def _run(arguments: list[str]) -> int:
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        return _fail(f"{error}\ntry: headway {_verb(arguments)}--help", 2)
    except HeadwayError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; outputs appear whole or not at all", 130)
    except BrokenPipeError:
        return 0
    except OSError as error:
        if error.errno is None and NO_TEMPORARY not in str(error):
            raise
        return _fail(_of_the_system(error), UnavailableError.exit_code)
    return 0


def _of_the_system(error: OSError) -> str:
    """An error of the operating system that no part of headway has foreseen: full, read-only or deleted folders."""
    problem = error.strerror or str(error)
    if NO_TEMPORARY in problem:
        return f"{problem}; set TMPDIR to a folder that can be written"
    if error.filename is None:
        return problem
    return (
        f"{os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename}: {problem}"
    )


def _fail(message: str, code: int) -> int:
    streams.say(f"headway: {message}")
    return code


def _verb(arguments: list[str]) -> str:
    return f"{arguments[0]} " if arguments and arguments[0] in VERBS else ""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # unwinds, so that partial outputs are removed


def _quiet_libraries() -> None:
    """Keep other libraries' notices and bars off the terminal; their errors come as exceptions."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    logging.disable(logging.WARNING)


if __name__ == "__main__":
    main()
