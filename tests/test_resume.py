"""An interrupted run that goes on comes to the weights of one that was never interrupted, or is refused."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from headway.core.errors import OutputError, UsageError
from headway.core.progress import silent
from headway.train import fit, resume
from headway.train.options import TrainOptions, flag
from tests import corpora
from tests.conftest import Run, records, write_jsonl
from tests.test_train import Killed, killed_after

FIGURES = (0.5, 0.4, 0.4, 0.9)
"""accuracy of each epoch: patience decides whether the last, the best, is reached"""
STEPS = 2
"""in an epoch"""
FILES = (
    "trainer_state.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "model.safetensors",
    "config.json",
    "training_args.bin",
    resume.COMPLETE,
)


@pytest.fixture(scope="module")
def module_options(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    folder = tmp_path_factory.mktemp("resume")
    return TrainOptions(
        model=str(pretrained),
        train=write_jsonl(folder / "train.jsonl", records("train", 32)),
        output=folder / "checkpoint",
        epochs=len(FIGURES),
        batch_size=16,
        learning_rate=1e-3,
        max_length=32,
        precision="fp32",
        threads=1,
    )


@pytest.fixture
def options(module_options: TrainOptions, tmp_path: Path) -> TrainOptions:
    return replace(module_options, output=tmp_path / "checkpoint")


@pytest.fixture(scope="module")
def interrupted(module_options: TrainOptions) -> Path:
    """What a run leaves that is killed in its fourth epoch; read only."""
    with pytest.raises(Killed):
        train(module_options, progress=killed_after(3 * STEPS + 1))
    return module_options.output.with_name("checkpoint.training")


def train(options: TrainOptions, **arguments: Any) -> bytes:
    """The bytes of the weights that come out."""
    trained = fit.train("text-classification", options, **arguments)
    return (trained.checkpoint / "model.safetensors").read_bytes()


def left_by(interrupted: Path, options: TrainOptions) -> Path:
    return shutil.copytree(interrupted, options.output.with_name("checkpoint.training"))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """FIGURES for the weights of each epoch in turn; weights that were seen before have the figure of then."""
    known: dict[str, float] = {}
    measure = fit._measure

    def measured(task: Any, specifics: Any, model: Any, *rest: Any) -> Any:
        weights = hashlib.sha256()
        for name, tensor in sorted(model.state_dict().items()):
            if "lora" not in name and "base_layer" not in name:  # the last measurement is of merged ones
                weights.update(tensor.numpy().tobytes())
        digest = weights.hexdigest()
        figure = known.setdefault(digest, FIGURES[len(known)] if len(known) < len(FIGURES) else -1.0)
        said, metrics, spec = measure(task, specifics, model, *rest)
        return said, metrics | {"accuracy": figure}, spec

    monkeypatch.setattr(fit, "_measure", measured)


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _kill_while_optimizer_is_written(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    save = torch.save

    def saved(content: Any, path: Any, *rest: Any, **more: Any) -> None:
        save(content, path, *rest, **more)
        if f"checkpoint-{epoch * STEPS}" in str(path) and str(path).endswith("optimizer.pt"):
            _half(Path(path))
            raise Killed

    monkeypatch.setattr(torch, "save", saved)


def _kill_before(name: str) -> Callable[[pytest.MonkeyPatch, int], None]:
    """As the power fails before a function of the module, which is called once an epoch."""

    def patch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
        call = getattr(resume, name)

        def called(folder: Path) -> None:
            saved = f"checkpoint-{epoch * STEPS}"
            if folder.name == saved or (folder / saved).exists():
                raise Killed
            call(folder)

        monkeypatch.setattr(resume, name, called)

    return patch


KILLS: tuple[Callable[[pytest.MonkeyPatch, int], None] | None, ...] = (
    None,  # in the middle of the epoch
    _kill_while_optimizer_is_written,
    _kill_before("mark_complete"),
    _kill_before("keep_newest"),
)


@pytest.mark.parametrize(
    ("patience", "kept", "changes"),
    [(1, 2, {}), (2, 3, {"lora": 2}), (3, 4, {"accumulate": 2}), (5, 4, {"layer_decay": 0.9})],
)
def test_killed_at_every_place(
    patience: int,
    kept: int,
    changes: dict[str, Any],
    options: TrainOptions,
    dev_file: Path,
    tmp_path: Path,
    figures: None,
) -> None:
    """One run is killed in each epoch, at each place, and goes on each time; also after training, in reporting."""
    options = replace(options, eval=dev_file, patience=patience, **changes)
    uninterrupted = train(replace(options, output=tmp_path / "uninterrupted"))
    work = tmp_path / "checkpoint.training"
    for epoch in range(1, kept + 1):
        for kill in KILLS:
            with pytest.MonkeyPatch.context() as patch:
                if kill is not None:
                    kill(patch, epoch)
                with pytest.raises(Killed):
                    train(
                        replace(options, resume=epoch > 1),
                        progress=killed_after(1) if kill is None else silent,
                    )
    assert resume.newest_complete(work)[0].name == f"checkpoint-{kept * STEPS}"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fit, "_judge", _kill)
        train(replace(options, resume=True))
    said: list[str] = []
    assert train(replace(options, resume=True), notify=said.append) == uninterrupted
    assert said == [f"going on after epoch {kept} ({work / f'checkpoint-{kept * STEPS}'})"]
    assert not work.exists()


def _kill(*_: Any) -> None:
    raise Killed


@pytest.mark.parametrize("changes", [{}, {"freeze": 2}])
def test_without_an_eval_file(changes: dict[str, Any], options: TrainOptions, tmp_path: Path) -> None:
    options = replace(options, epochs=2, **changes)
    uninterrupted = train(replace(options, output=tmp_path / "uninterrupted"))
    for resumes, done in ((False, STEPS + 1), (True, 1)):
        with pytest.raises(Killed):
            train(replace(options, resume=resumes), progress=killed_after(done))
    assert train(replace(options, resume=True)) == uninterrupted


def test_hard_negatives_are_mined_from_the_same_model(options: TrainOptions, tmp_path: Path) -> None:
    rows = [{"anchor": r["anchor"], "positive": r["positive"]} for r in corpora.triplets("train")[:24]]
    options = replace(
        options, train=write_jsonl(tmp_path / "pairs.jsonl", rows), epochs=2, batch_size=8, hard_negatives=1
    )
    whole = replace(options, output=tmp_path / "uninterrupted")
    expected = fit.train("sentence-embedding", whole).checkpoint
    with pytest.raises(Killed):
        fit.train("sentence-embedding", options, killed_after(5))
    found = fit.train("sentence-embedding", replace(options, resume=True)).checkpoint
    ours, others = (load_file(folder / "model.safetensors") for folder in (found, expected))
    assert all(torch.equal(ours[name], others[name]) for name in others)


def test_the_best_epoch_is_found_from_another_folder(
    options: TrainOptions, dev_file: Path, tmp_path: Path, figures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(options, eval=dev_file, patience=2)
    uninterrupted = train(replace(options, output=tmp_path / "uninterrupted"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fit, "_judge", _kill)  # after training: no epoch follows that would find it again
        train(replace(options, output=Path("checkpoint")))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert train(replace(options, output=Path("../checkpoint"), resume=True)) == uninterrupted


def _remove(path: Path) -> None:
    path.unlink()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_remove, _half, _flip, _empty])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_epoch_does_not_count(
    name: str, damage: Callable[[Path], None], interrupted: Path, options: TrainOptions
) -> None:
    work = left_by(interrupted, options)
    newest, before = f"checkpoint-{3 * STEPS}", f"checkpoint-{2 * STEPS}"
    assert resume.newest_complete(work) == (work / newest, [])
    damage(work / newest / name)
    folder, skipped = resume.newest_complete(work)
    assert folder.name == before
    assert len(skipped) == 1
    assert skipped[0].startswith(f"{newest}: ")
    assert (name in skipped[0]) != (name == resume.COMPLETE)


def test_the_epochs_are_all_that_was_saved(interrupted: Path) -> None:
    assert {p.name for p in (interrupted / f"checkpoint-{3 * STEPS}").iterdir()} == set(FILES)
    assert {p.name for p in interrupted.iterdir()} == {
        resume.RUN,
        *(f"checkpoint-{epoch * STEPS}" for epoch in (2, 3)),
    }


def test_from_the_epoch_before(
    interrupted: Path, module_options: TrainOptions, options: TrainOptions, tmp_path: Path, run: Run
) -> None:
    """The command says which epoch is not complete, and comes to the same weights from the one before."""
    expected = train(replace(options, output=tmp_path / "uninterrupted"))
    work = left_by(interrupted, options)
    _half(work / f"checkpoint-{3 * STEPS}" / "optimizer.pt")
    given = [(flag(n), getattr(options, n)) for n in ("model", "train", "output", "epochs", "batch_size")]
    given += [(flag(n), getattr(options, n)) for n in ("learning_rate", "max_length", "precision", "threads")]
    came = run("train", "text-classification", *(part for pair in given for part in pair), "--resume")
    assert came.code == 0, came.err
    assert f"not complete, and left out: checkpoint-{3 * STEPS}: optimizer.pt has " in came.err
    assert f"going on after epoch 2 ({work / f'checkpoint-{2 * STEPS}'})" in came.err
    assert (options.output / "model.safetensors").read_bytes() == expected


def test_an_epoch_needs_its_best_one(
    options: TrainOptions, dev_file: Path, tmp_path: Path, figures: None
) -> None:
    with pytest.raises(Killed):
        train(replace(options, eval=dev_file, patience=5), progress=killed_after(3 * STEPS + 1))
    work = tmp_path / "checkpoint.training"
    assert {p.name for p in work.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4", "checkpoint-6"}
    _half(work / "checkpoint-2" / "model.safetensors")
    message = (
        r"^--resume: no epoch in .* is complete \(checkpoint-6: its best epoch so far is checkpoint-2, where "
    )
    with pytest.raises(UsageError, match=message):
        resume.newest_complete(work)


def test_no_complete_epoch(interrupted: Path, options: TrainOptions) -> None:
    work = left_by(interrupted, options)
    for folder in work.glob("checkpoint-*"):
        (folder / resume.COMPLETE).unlink()
    message = (
        r"no epoch in .* is complete \(checkpoint-6: its saving was interrupted; checkpoint-4: .*\); leave"
    )
    with pytest.raises(UsageError, match=message):
        train(replace(options, resume=True))
    assert len(list(work.glob("checkpoint-*"))) == 2  # nothing is lost by asking


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 8}, "--batch-size: is 8, the interrupted run had 16"),
        ({"seed": 14, "lora": 2}, "--lora: is 2, the interrupted run had 0; --seed: is 14, .* had 13"),
        ({"epochs": 5}, "--epochs: is 5, the interrupted run had 4"),
        ({"columns": "text=text"}, "--columns: is text=text, the interrupted run had none"),
        ({"threads": 2}, "--threads: is 2, the interrupted run had 1"),
    ],
)
def test_other_options_are_refused(
    changes: dict[str, Any], message: str, interrupted: Path, options: TrainOptions
) -> None:
    left_by(interrupted, options)
    with pytest.raises(UsageError, match=f"^{message}; give what it had"):
        train(replace(options, resume=True, **changes))


def test_every_option_counts(module_options: TrainOptions) -> None:
    """A new option of TrainOptions is compared, unless it is named here."""
    before = resume.describe_run("text-classification", module_options, 1, "fp32")
    silent = {"model", "train", "eval", "output", "resume", "overwrite", "threads"}
    for field in fields(TrainOptions):
        if field.name not in silent:
            now = before.options | {field.name: "other"}
            ((name, _),) = resume._differences(before, type(before)(**{**_fields(before), "options": now}))
            assert name == flag(field.name)


def _fields(run: resume.Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in run.__struct_fields__}


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("task", "token-classification", "--resume: the interrupted run was token-classification, not text"),
        ("format", "headway-training-0", "--resume: .*run.json does not say what was interrupted"),
        (
            "machine",
            {"torch": "1.0"},
            "torch: is .*, the interrupted run had 1.0; processes: is 1, the interrupted run had none",
        ),
    ],
)
def test_another_task_or_library(
    part: str, value: Any, message: str, interrupted: Path, options: TrainOptions
) -> None:
    path = left_by(interrupted, options) / resume.RUN
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: value}))
    with pytest.raises(UsageError, match=f"^{message}"):
        train(replace(options, resume=True))


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff"])
def test_a_run_that_says_nothing_of_itself(
    content: bytes | None, interrupted: Path, options: TrainOptions
) -> None:
    path = left_by(interrupted, options) / resume.RUN
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError, match="does not say what was interrupted; leave --resume out"):
        train(replace(options, resume=True))


def _other_rows(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [*rows[1:], rows[0]]


def _other_labels(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row | {"label": row["label"][::-1]} for row in rows]


@pytest.mark.parametrize("change", [_other_rows, _other_labels])
def test_other_data(change: Any, interrupted: Path, options: TrainOptions, tmp_path: Path) -> None:
    left_by(interrupted, options)
    other = write_jsonl(tmp_path / "other.jsonl", change(records("train", 32)))
    with pytest.raises(UsageError, match="^--train: is not the data of the interrupted run: is SHA-256 "):
        train(replace(options, train=other, resume=True))
    with pytest.raises(UsageError, match="^--eval: is not the data .* the interrupted run had none"):
        train(replace(options, eval=other, resume=True))


def test_the_same_data_elsewhere(interrupted: Path, options: TrainOptions, tmp_path: Path) -> None:
    left_by(interrupted, options)
    moved = shutil.copy(options.train, tmp_path / "moved.jsonl")
    model = shutil.copytree(str(options.model), tmp_path / "moved")
    said: list[str] = []
    train(replace(options, train=Path(moved), model=str(model), resume=True), notify=said.append)
    assert said[0].startswith("going on after epoch 3")


@pytest.mark.parametrize(
    ("part", "file", "change"),
    [
        ("configuration", "config.json", {"hidden_dropout_prob": 0.5}),
        ("tokenizer", "tokenizer.json", {"normalizer": None}),
        ("tokenizer", "tokenizer_config.json", {"truncation_side": "left"}),
        ("weights", "model.safetensors", None),
    ],
)
def test_another_model(
    part: str, file: str, change: Any, interrupted: Path, options: TrainOptions, tmp_path: Path
) -> None:
    work = left_by(interrupted, options)
    model = shutil.copytree(str(options.model), tmp_path / "other")
    path = model / file
    if change is None:
        _flip(path)
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match=f"^--model: its {part} is not the interrupted run's: is SHA-256 "):
        train(replace(options, model=str(model), resume=True))
    assert len(list(work.glob("checkpoint-*"))) == 2


def test_beginning_anew_is_told(interrupted: Path, options: TrainOptions) -> None:
    work = left_by(interrupted, options)
    said: list[str] = []
    train(replace(options, epochs=1), notify=said.append)
    assert said == [f"beginning anew: the epochs in {work} are removed"]


def test_a_file_where_the_epochs_go(options: TrainOptions) -> None:
    options.output.with_name("checkpoint.training").touch()
    with pytest.raises(OutputError, match=r"checkpoint.training: it is a file"):
        train(options)


def test_a_link_where_the_epochs_go(options: TrainOptions, tmp_path: Path) -> None:
    """As of a user who has moved them to another disk: they are not removed behind the link."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "checkpoint-2").mkdir(parents=True)
    options.output.with_name("checkpoint.training").symlink_to(elsewhere)
    with pytest.raises(OutputError, match=r"checkpoint.training: it is a link; remove it to begin anew"):
        train(options)
    assert (elsewhere / "checkpoint-2").is_dir()


def test_other_folders_are_no_epochs(interrupted: Path, options: TrainOptions) -> None:
    work = left_by(interrupted, options)
    for name in ("checkpoint-old", "checkpoint-9.bak"):
        (work / name).mkdir()
    (work / "checkpoint-99").touch()
    assert resume.newest_complete(work)[0].name == f"checkpoint-{3 * STEPS}"
