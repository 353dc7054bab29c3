"""`headway.json`: round trip, seal, hashes, and what is refused."""

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core import manifest
from headway.core.errors import BundleError, CheckpointError
from headway.core.manifest import Bundle, Checkpoint, File, Graph, Tensor, Variant
from headway.core.search import Search
from headway.runtime import load

PARITY = {"worst": 1e-6, "neighbours": 1e-7, "agreement": 1.0}
CONTENT = {"fp32/model.onnx": b"graph" * 100, "tokenizer.json": b"{}"}


def small_bundle() -> Bundle:
    from hashlib import sha256

    return Bundle(
        task="text-classification",
        labels=["a", "é 漢"],
        max_length=48,
        pad_id=0,
        graphs={
            "model": Graph(
                inputs=[Tensor(name="input_ids", dtype="int64", shape=["batch", "length"])],
                outputs=[Tensor(name="logits", dtype="float32", shape=["batch", 2])],
            )
        },
        variants={
            "fp32": Variant(precision="fp32", graphs={"model": "fp32/model.onnx"}, parity=PARITY),
        },
        architecture={"model_type": "bert"},
        made_by={"headway": "0.1.0"},
        source={"metrics": {"accuracy": 0.5}},
        files={n: File(bytes=len(c), sha256=sha256(c).hexdigest()) for n, c in CONTENT.items()},
    )


def small_writer() -> Bundle:
    """Of an encoder-decoder with 60 tokens."""
    logits = Tensor(name="logits", dtype="float32", shape=["rows", "kept", 60])
    ids = Tensor(name="input_ids", dtype="int64", shape=["rows", "step"])
    return msgspec.structs.replace(
        small_bundle(),
        task="text2text-generation",
        labels=[],
        settings={"max_new_tokens": 8, "num_beams": 2},
        graphs={
            "encoder": Graph(inputs=[ids], outputs=[]),
            "decoder": Graph(inputs=[ids], outputs=[logits]),
        },
        search=msgspec.to_builtins(Search(decoder_start_token_id=0, eos_token_id=[1])),
        longest=64,
        variants={
            "fp32": Variant(
                precision="fp32",
                graphs={"encoder": "fp32/model.onnx", "decoder": "fp32/model.onnx"},
                settings={"max_new_tokens": 4},
                parity=PARITY,
            ),
        },
    )


def small_checkpoint() -> Checkpoint:
    return Checkpoint(
        task="text-classification",
        labels=["a", "b"],
        max_length=48,
        model="tiny",
        training_data={"train": "00"},
        options={"epochs": 2, "columns": None},
        metrics={"accuracy": 0.5},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small bundle whose files are no real model."""
    (tmp_path / "bundle" / "fp32").mkdir(parents=True)
    for name, content in CONTENT.items():
        (tmp_path / "bundle" / name).write_bytes(content)
    small_bundle().write(tmp_path / "bundle")
    return tmp_path / "bundle"


def rewrite(folder: Path, seal: bool = True, **changes: Any) -> None:
    """Change fields of a bundle's manifest (None removes one) and seal it again, as an attacker would."""
    path = folder / manifest.NAME
    content = json.loads(path.read_text("utf-8")) | changes
    content = {k: v for k, v in content.items() if v is not None and k != "seal"}
    path.write_text(json.dumps(content | {"seal": manifest._seal(content)} if seal else content), "utf-8")


def test_round_trip(folder: Path) -> None:
    assert Bundle.read(folder) == small_bundle()
    assert Bundle.read(folder).seal == json.loads((folder / manifest.NAME).read_text("utf-8"))["seal"]


def test_round_trip_of_a_checkpoint(tmp_path: Path) -> None:
    small_checkpoint().write(tmp_path)
    assert Checkpoint.read(tmp_path) == small_checkpoint()


def test_kind(folder: Path, tmp_path: Path) -> None:
    small_checkpoint().write(tmp_path)
    assert (manifest.kind(folder), manifest.kind(tmp_path)) == ("bundle", "checkpoint")


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b"{}", b'{"format": "other-1"}', b"\xff", b"[" * 100_000]
)
def test_neither_checkpoint_nor_bundle(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / manifest.NAME).write_bytes(content)
    with pytest.raises(BundleError):
        manifest.kind(tmp_path)
    with pytest.raises(BundleError):
        Bundle.read(tmp_path)
    with pytest.raises(CheckpointError):
        Checkpoint.read(tmp_path)


def test_a_checkpoint_is_no_bundle(tmp_path: Path) -> None:
    small_checkpoint().write(tmp_path)
    with pytest.raises(BundleError, match="the format 'headway-checkpoint-1', this version reads"):
        Bundle.read(tmp_path)


def test_unknown_format(folder: Path) -> None:
    rewrite(folder, format="headway-bundle-2")
    with pytest.raises(BundleError, match="'headway-bundle-2', this version reads 'headway-bundle-1'"):
        Bundle.read(folder)


@pytest.mark.parametrize("field", [f.name for f in msgspec.structs.fields(Bundle)])
def test_the_seal_covers_every_field(field: str, folder: Path) -> None:
    path = folder / manifest.NAME
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(content | {field: 0 if field != "pad_id" else 1}), "utf-8")
    with pytest.raises(BundleError):
        Bundle.read(folder)


def test_a_missing_seal(folder: Path) -> None:
    rewrite(folder, seal=False)
    with pytest.raises(BundleError, match="its seal does not fit"):
        Bundle.read(folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"labels": None}, "labels"),
        ({"max_length": "48"}, "max_length"),
        ({"labels": [1, 2]}, "labels"),
        ({"variants": {"fp32": {"precision": "fp32"}}}, "graphs"),
        ({"files": {"a": {"bytes": 1}}}, "sha256"),
        ({"graphs": {"model": {"inputs": [{"name": "input_ids"}], "outputs": []}}}, "dtype"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, Any], named: str, folder: Path) -> None:
    rewrite(folder, **changes)
    with pytest.raises(BundleError, match=named):
        Bundle.read(folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"task": "juggling"}, "task: unknown 'juggling'"),
        ({"max_length": 0}, r"`int` >= 1 - at `\$.max_length`"),
        ({"pad_id": -1}, r"`int` >= 0 - at `\$.pad_id`"),
        ({"settings": {"kind": "none"}}, r"settings: .* at `\$.kind`"),
        ({"labels": ["a"]}, "labels: are 1, but 'logits' has 2 classes"),
        ({"graphs": {}}, r"graphs: text-classification has no graphs \[\]"),
        ({"graphs": {"model": {"inputs": [], "outputs": []}}}, "graphs.model.outputs: no 'logits' of batch, classes"),
        ({"variants": {}}, "variants: there are none"),
    ],
)  # fmt: skip
def test_fields_that_make_no_sense_are_named(changes: dict[str, Any], named: str, folder: Path) -> None:
    rewrite(folder, **changes)
    with pytest.raises(BundleError, match=f"headway.json: .*{named}"):
        Bundle.read(folder)


def test_a_graph_without_padding_beside_the_padded_one(folder: Path) -> None:
    """A variant may have it where it is declared; it stands for nothing else, and in no model that writes."""
    declared = Bundle.read(folder)
    graphs, variants = (msgspec.to_builtins(part) for part in (declared.graphs, declared.variants))
    own = variants["fp32"]["graphs"] | {"ragged": "fp32/ragged.onnx"}
    both, beside = graphs | {"ragged": graphs["model"]}, {"fp32": variants["fp32"] | {"graphs": own}}
    rewrite(folder, graphs=both, variants=beside)
    assert Bundle.read(folder).variants["fp32"].graphs == own
    rewrite(folder, graphs=both, variants=variants)
    assert Bundle.read(folder).graphs.keys() == {"model", "ragged"}
    alone = {"fp32": variants["fp32"] | {"graphs": {"ragged": "fp32/ragged.onnx"}}}
    for wrong, named in (
        ({"graphs": graphs, "variants": beside}, r"fp32.graphs: must be files of \['model'\], not of"),
        (
            {"graphs": both, "variants": alone},
            r"fp32.graphs: must be files of \['model'\], not of \['ragged'\]",
        ),
        ({"graphs": {"ragged": graphs["model"]}}, r"graphs: text-classification has no graphs \['ragged'\]"),
    ):
        rewrite(folder, **wrong)
        with pytest.raises(BundleError, match=named):
            Bundle.read(folder)


def test_a_model_that_writes_has_no_graph_without_padding(tmp_path: Path) -> None:
    small_writer().write(tmp_path)
    graphs = msgspec.to_builtins(small_writer().graphs)
    rewrite(tmp_path, graphs=graphs | {"ragged": graphs["decoder"]})
    with pytest.raises(BundleError, match=r"has no graphs \['decoder', 'encoder', 'ragged'\]"):
        Bundle.read(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("graphs", {"decoder": "fp32/model.onnx"}, "graphs: must be files of ['decoder', 'encoder'], not of"),
        ("settings", {"num_beams": "two"}, "settings: Expected `int | null`, got `str` - at `$.num_beams`"),
        ("settings", {"num_beams": 0}, "num_beams: must be at least 1"),
        ("settings", {"num_beams": 10**9}, "num_beams: must be at most 1024, not 1000000000"),
        ("parity", {"worst": 1e-6}, "parity: Object missing required field"),
        ("parity", PARITY | {"worst": "small"}, "parity: Expected `float`, got `str` - at `$.worst`"),
    ],
)
def test_fields_of_variants(field: str, value: Any, named: str, tmp_path: Path) -> None:
    small_writer().write(tmp_path)
    variants = msgspec.to_builtins(small_writer().variants)
    rewrite(tmp_path, variants={"fp32": variants["fp32"] | {field: value}})
    with pytest.raises(BundleError) as caught:
        Bundle.read(tmp_path)
    assert f"{manifest.NAME}: " in caught.value.problem
    assert named in caught.value.problem


@pytest.mark.parametrize(
    ("search", "named"),
    [
        ({"decoder_start_token_id": 0, "penalty_alpha": 1.0}, "unknown field `penalty_alpha`"),
        ({"decoder_start_token_id": 0, "self": 1}, "unknown field `self`"),
        ({"decoder_start_token_id": "0"}, "Expected `int | null`, got `str` - at `$.decoder_start_token_id`"),
        ({"decoder_start_token_id": 0, "length_penalty": None}, "at `$.length_penalty`"),
        ({"decoder_start_token_id": 0, "max_length": 0}, "max_length: must be at least 1, not 0"),
        ({"decoder_start_token_id": 60}, "decoder_start_token_id: the model has no token 60; it has 60"),
        ({"decoder_start_token_id": 0, "bad_words_ids": [[]]}, "bad_words_ids: holds a sequence without"),
        ({"decoder_start_token_id": 0, "min_new_tokens": 5}, "min_new_tokens: 5 is more than max_new_tokens"),
        ({}, "decoder_start_token_id: an encoder-decoder needs it"),
    ],
)
def test_a_search_that_makes_no_sense(search: dict[str, Any], named: str, tmp_path: Path) -> None:
    small_writer().write(tmp_path)
    rewrite(tmp_path, search=search)
    with pytest.raises(BundleError) as caught:
        Bundle.read(tmp_path)
    assert f"{manifest.NAME}: search: " in caught.value.problem
    assert named in caught.value.problem


def test_wrong_fields_of_a_checkpoint_are_named(tmp_path: Path) -> None:
    content = msgspec.to_builtins(small_checkpoint())
    del content["max_length"]
    (tmp_path / manifest.NAME).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="max_length"):
        Checkpoint.read(tmp_path)


def test_verify_accepts_what_was_written(folder: Path) -> None:
    Bundle.read(folder).verify(folder)


def test_truncated(folder: Path) -> None:
    (folder / "fp32" / "model.onnx").write_bytes(CONTENT["fp32/model.onnx"][:-1])
    with pytest.raises(BundleError, match=r"fp32/model.onnx has 499 bytes, headway.json says 500"):
        Bundle.read(folder).verify(folder)


def test_tampered(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(BundleError, match=r"tokenizer.json was changed: its SHA-256"):
        Bundle.read(folder).verify(folder)
    Bundle.read(folder).verify(folder, ["fp32/model.onnx"])


def test_missing_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer.json is missing"):
        Bundle.read(folder).verify(folder)


def test_file_that_is_not_listed(folder: Path) -> None:
    (folder / "extra.bin").touch()
    with pytest.raises(BundleError, match=r"extra.bin is used but not listed"):
        Bundle.read(folder).verify(folder, ["extra.bin"])


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "a/" * 3000])
def test_paths_that_cannot_be(name: str, folder: Path) -> None:
    rewrite(folder, files={name: {"bytes": 0, "sha256": ""}})
    with pytest.raises(BundleError, match=r"cannot be: |is missing"):
        Bundle.read(folder).verify(folder)


def test_links_that_go_round(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(BundleError, match=r"tokenizer.json"):
        Bundle.read(folder).verify(folder)


@pytest.mark.parametrize("content", [b'{"format": %s}' % (b"1" * 5000), b'{"format": "\\ud800"}'])
def test_json_that_python_cannot_hold(content: bytes, tmp_path: Path) -> None:
    (tmp_path / manifest.NAME).write_bytes(content)
    with pytest.raises(BundleError, match="headway.json is not JSON"):
        Bundle.read(tmp_path)
    with pytest.raises(BundleError):
        manifest.kind(tmp_path)
    with pytest.raises(CheckpointError):
        Checkpoint.read(tmp_path)


def test_a_manifest_that_cannot_be_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(BundleError, match="headway.json cannot be read: Permission denied"):
        Bundle.read(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "fp32/../../x", "..\\x", "fp32\\..\\..\\x"])
def test_paths_that_lead_out(name: str, folder: Path) -> None:
    rewrite(folder, files={name: {"bytes": 0, "sha256": ""}})
    with pytest.raises(BundleError, match="leads out of it"):
        Bundle.read(folder).verify(folder)


def test_a_link_to_the_bundle_itself_is_fine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    Bundle.read(tmp_path / "link").verify(tmp_path / "link")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def mutated(original: bytes, seed: int) -> bytes:
    """A few bytes changed, taken out, put in, or moved."""
    rng, content = random.Random(seed), bytearray(original)
    for _ in range(rng.randint(1, 4)):
        begin = rng.randrange(len(content))
        end = min(len(content), begin + rng.choice([1, 1, 2, 10, len(content)]))
        piece = rng.choice([b"", rng.randbytes(1), b'"', b"0", b"null", b"}", b"[", content[begin:end] * 2])
        content[begin:end] = piece
        if not content:
            break
    return bytes(content)


@given(st.integers(0, 2**32))
def test_a_damaged_manifest_is_never_believed(scratch: Path, seed: int) -> None:
    small_bundle().write(scratch)
    path = scratch / manifest.NAME
    path.write_bytes(mutated(path.read_bytes(), seed))
    try:
        assert Bundle.read(scratch) == small_bundle()
    except BundleError:
        pass


SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2**31, 2**63, 10**400])
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["../x", "a\0b", "fp32/model.onnx", "text-generation", "decoder", "self"])
)
VALUES = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3)
)


def parts(value: Any) -> list[tuple[Any, Any]]:
    """Every part of a JSON value: what holds it, and its name or number there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [found for key in keys for found in [(value, key), *parts(value[key])]]


@st.composite
def places_of(draw: Any, content: dict[str, Any]) -> tuple[Any, Any]:
    """A field of a manifest, or any part of one: each field is as likely as another."""
    field = draw(st.sampled_from(sorted(content)))
    return draw(st.sampled_from([(content, field), *parts(content[field])]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [small_bundle, small_writer])
@settings(max_examples=300)
@given(data=st.data(), value=VALUES, change=st.sampled_from(["replace", "remove", "add"]))
def test_any_value_in_any_field_is_read_or_refused(
    make: Callable[[], Bundle], scratch: Path, data: st.DataObject, value: Any, change: str
) -> None:
    content = msgspec.to_builtins(make())
    holder, last = data.draw(places_of(content))
    if change == "remove":
        del holder[last]
    elif change == "add" and isinstance(holder[last], dict):
        holder[last]["self"] = value
    elif change == "add" and isinstance(holder[last], list):
        holder[last].append(value)
    else:
        holder[last] = value
    sealed = content | {"seal": manifest._seal(content)}
    (scratch / manifest.NAME).write_text(json.dumps(sealed), "utf-8")
    for name, kept in CONTENT.items():
        (scratch / name).parent.mkdir(exist_ok=True)
        (scratch / name).write_bytes(kept)
    with suppress(BundleError):
        Bundle.read(scratch).verify(scratch)


@settings(max_examples=150)
@given(data=st.data(), value=VALUES)
def test_a_bundle_with_any_value_in_any_field_is_opened_or_refused(
    bundle: Path, scratch: Path, data: st.DataObject, value: Any
) -> None:
    copy = scratch / "bundle"
    if not copy.exists():
        shutil.copytree(bundle, copy)
    content = json.loads((bundle / manifest.NAME).read_text("utf-8"))
    del content["seal"]
    holder, last = data.draw(places_of(content))
    holder[last] = value
    sealed = content | {"seal": manifest._seal(content)}
    (copy / manifest.NAME).write_text(json.dumps(sealed), "utf-8")
    with suppress(BundleError):
        load(copy, threads=1)


def test_the_exported_bundle_is_whole(bundle: Path, tmp_path: Path) -> None:
    Bundle.read(bundle).verify(bundle)
    listed = set(Bundle.read(bundle).files)
    there = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert listed == there - {manifest.NAME}
    shutil.copytree(bundle, tmp_path / "copy")
    for name in listed:
        path = tmp_path / "copy" / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BundleError, match=f"{name} was changed"):
            Bundle.read(bundle).verify(tmp_path / "copy")
        path.write_bytes(content)
