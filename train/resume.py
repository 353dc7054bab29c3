"""Going on with an interrupted run: from its newest complete epoch, and only if it comes to the same weights.

`<output>.training` has `run.json`, which says what the weights depend on, and a folder for each epoch that is kept. An
epoch's folder is complete when it has a `complete.json` and every file in it is as that lists it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import PreTrainedTokenizerBase

from headway.core import files
from headway.core.errors import UsageError
from headway.core.threads import budget
from headway.train.options import TrainOptions, flag

FORMAT = "headway-training-1"
RUN, COMPLETE = "run.json", "complete.json"
STATE = "trainer_state.json"
"""transformers' own record of an epoch"""
REMEDY = "give what it had, or leave --resume out to begin anew"
LIBRARIES = ("headway", "torch", "transformers", "accelerate", "peft", "tokenizers", "numpy")
"""packages whose version decides over the weights"""
_FOLDER = re.compile(r"checkpoint-(\d+)")


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that the weights of a training run depend on."""

    format: str = FORMAT
    task: str
    options: dict[str, Any]
    """without paths, and without what does not change the weights"""
    data: dict[str, str | None]
    """SHA-256 of the files, by role"""
    machine: dict[str, Any]
    """threads, processes, device, precision of the steps, versions of the libraries"""
    model: dict[str, str] = {}
    """SHA-256 of weights, tokenizer and configuration before the first step; empty before they are known"""

    def write(self, work: Path) -> None:
        """Put it into the folder of the epochs. Raises OutputError."""
        with files.whole_file(work / RUN) as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(self)).decode() + "\n")


class _Complete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bytes: dict[str, int]
    sha256: dict[str, str]


def describe_run(task: str, options: TrainOptions, processes: int, precision: str) -> Run:
    """The run that these options ask for, on this machine as it is. `precision` is that of the steps."""
    return Run(
        task=task,
        options=portable(options),
        data={role: _hash(path) for role, path in (("train", options.train), ("eval", options.eval))},
        machine={
            "processes": processes,
            "device": _device(),
            "precision of the steps": precision,
            **({} if torch.cuda.is_available() else {"--threads": budget(options.threads)}),
            **{name: version(name) for name in LIBRARIES},
        },
    )


def portable(options: TrainOptions) -> dict[str, Any]:
    """The options without paths, which mean nothing on another machine."""
    machine = ("model", "train", "eval", "output", "resume", "overwrite", "threads")
    return {name: value for name, value in asdict(options).items() if name not in machine}


def fingerprint(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """SHA-256 of a model's weights and configuration and of its tokenizer."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        weights.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    config: Any = model.config
    told = {k: v for k, v in config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    parts = {"raw": tokenizer.backend_tokenizer.to_str(), "special": tokenizer.special_tokens_map}
    return {
        "weights": weights.hexdigest(),
        "configuration": _hash_of_json(told),
        "tokenizer": _hash_of_json(
            parts | {"inputs": tokenizer.model_input_names, "truncation side": tokenizer.truncation_side}
        ),
    }


def refuse_other_run(work: Path, now: Run) -> None:
    """Raise UsageError if there is nothing to resume, or it would not come to the weights of the interrupted run."""
    if not any(work.glob("checkpoint-*")):
        raise UsageError("--resume", f"there is nothing to resume in {work}")
    try:
        before = msgspec.json.decode((work / RUN).read_bytes(), type=Run)
        if before.format != FORMAT:
            raise ValueError(before.format)
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise UsageError(
            "--resume", f"{work / RUN} does not say what was interrupted; leave --resume out to begin anew"
        ) from error
    if before.task != now.task:
        raise UsageError("--resume", f"the interrupted run was {before.task}, not {now.task}")
    if found := _differences(before, msgspec.json.decode(msgspec.json.encode(now), type=Run)):
        (name, first), *others = found
        raise UsageError(name, "; ".join([first, *(f"{n}: {problem}" for n, problem in others), REMEDY]))


def _differences(before: Run, now: Run) -> list[tuple[str, str]]:
    """What differs, each with an option or what else it is of, and both values."""
    found = [(flag(name), _values(old, new)) for name, old, new in _unequal(before.options, now.options)]
    for role, old, new in _unequal(before.data, now.data):
        found.append((flag(role), "is not the data of the interrupted run: " + _values(old, new, "SHA-256 ")))
    if now.model:
        for part, old, new in _unequal(before.model, now.model):
            found.append(
                ("--model", f"its {part} is not the interrupted run's: " + _values(old, new, "SHA-256 "))
            )
    found += [(name, _values(old, new)) for name, old, new in _unequal(before.machine, now.machine)]
    return found


def _unequal(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    names = list(dict.fromkeys([*before, *now]))
    return [(n, before.get(n), now.get(n)) for n in names if before.get(n) != now.get(n)]


def _values(old: Any, new: Any, kind: str = "") -> str:
    was, now = ("none" if v is None else f"{kind}{str(v)[:12] if kind else v}" for v in (old, new))
    return f"is {now}, the interrupted run had {was}"


def mark_complete(folder: Path) -> None:
    """The last act of saving an epoch: list its files, by size and hash."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    known = _Complete(
        {name: path.stat().st_size for name, path in sorted(found.items())},
        {name: files.sha256(path) for name, path in sorted(found.items())},
    )
    with files.whole_file(folder / COMPLETE) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(known)).decode() + "\n")


def keep_only(work: Path, *steps: int | None) -> None:
    """Remove the epochs that end at other steps than these."""
    for step, folder in _epochs(work).items():
        if step not in steps:
            (folder / COMPLETE).unlink(
                missing_ok=True
            )  # what is left of a removal that is cut off does not count
            shutil.rmtree(folder, ignore_errors=True)


def keep_newest(work: Path) -> None:
    """Remove all epochs but the newest, the one before it, and the best that each of the two knows."""
    newest = [folder for _, folder in sorted(_epochs(work).items())[-2:]]
    keep_only(work, *(step_of(folder) for folder in newest), *(best_step(folder) for folder in newest))


def newest_complete(work: Path) -> tuple[Path, list[str]]:
    """The newest epoch from which to go on, and in words why each newer one is not it.

    An epoch needs the one that was the best so far, too, as that may be kept in the end. What cannot be used is left as
    it is. Raises UsageError if there is no complete epoch.
    """
    skipped: list[str] = []
    for _, folder in sorted(_epochs(work).items(), reverse=True):
        problem = _problem(folder)
        if problem is None:
            best = best_step(folder)
            other = None if best is None else work / f"checkpoint-{best}"
            if other is None or (problem := _problem(other)) is None:
                return folder, skipped
            problem = f"its best epoch so far is {other.name}, where {problem}"
        skipped.append(f"{folder.name}: {problem}")
    raise UsageError(
        "--resume", f"no epoch in {work} is complete ({'; '.join(skipped)}); leave --resume out to begin anew"
    )


def latest(work: Path) -> Path:
    """The newest epoch, complete or not."""
    return max(_epochs(work).items())[1]


def step_of(folder: Path) -> int:
    """The step at which the epoch in a folder ends."""
    return int(_state(folder)["global_step"])


def epoch_of(folder: Path) -> float:
    """How many epochs were trained when this one ended."""
    return float(_state(folder)["epoch"])


def best_step(folder: Path) -> int | None:
    """The step at which the best epoch so far ended, as the epoch in this folder knows; None without an eval file."""
    best = _state(folder).get("best_global_step")
    return None if best is None else int(best)


def stopped_at(folder: Path) -> int | None:
    """The step of an epoch after which training was over, by its length or by patience; None if it was not."""
    state = _state(folder)
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    return int(state["global_step"]) if control.get("should_training_stop") else None


def _state(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / STATE).read_text("utf-8"))
    return content


def _epochs(work: Path) -> dict[int, Path]:
    """Folders of epochs by the step at which they end."""
    found = {p: _FOLDER.fullmatch(p.name) for p in work.glob("checkpoint-*") if p.is_dir()}
    return {int(match[1]): path for path, match in found.items() if match}


def _problem(folder: Path) -> str | None:
    """In words what an epoch lacks; None if it is complete."""
    try:
        known = msgspec.json.decode((folder / COMPLETE).read_bytes(), type=_Complete)
    except (OSError, ValueError):
        return "its saving was interrupted"
    for name, size in known.bytes.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if (found := path.stat().st_size) != size:
            return f"{name} has {found} bytes instead of {size}"
        if files.sha256(path) != known.sha256.get(name):
            return f"{name} is damaged"
    return None


def _hash(path: Path | None) -> str | None:
    """Of a data file or folder; None where there is none, of which reading it tells."""
    return files.sha256_of_data(path) if path is not None and path.exists() else None


def _hash_of_json(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _device() -> str:
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"processor with {torch.backends.cpu.get_cpu_capability()}"
