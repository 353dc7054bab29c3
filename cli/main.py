"""Entry point: parse, run one verb, turn errors into one line and an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType

import cyclopts

from headway.core.errors import HeadwayError

VERBS = ("train", "evaluate", "export", "predict", "bench", "inspect", "doctor", "demo")

app = cyclopts.App(
    name="headway",
    help="Fine-tuned transformers to production: train, export with proof, predict, measure.",
    help_format="plaintext",
    result_action="return_value",
)
for verb in VERBS:
    app.command(f"headway.cli.{verb}:{verb}", name=verb)


def main() -> None:
    """Run the command line and leave with DESIGN's exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit code. Nothing but a bug shows a traceback."""
    _quiet_libraries()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        return _fail(f"{error}\ntry: headway {_verb(arguments)}--help", 2)
    except HeadwayError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written was left", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: no more words
        return 0
    return 0


def _fail(message: str, code: int) -> int:
    print(f"headway: {message}", file=sys.stderr)
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
