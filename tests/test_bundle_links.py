"""Bundles whose files are links, as caches and volumes have them: opened, and compared through the links."""

import shutil
from pathlib import Path

import onnx
import pytest

from headway.core import files
from headway.core.errors import BundleError
from headway.core.manifest import Bundle
from headway.runtime import load
from tests.conftest import Run
from tests.small import small_bundle
from tests.test_manifest import rewrite


def linked(folder: Path, layout: str) -> Path:
    """The same bundle as other programs lay it out: of links."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    root = folder.parent / layout
    if layout == "hub":  # huggingface_hub: snapshots/<commit>/x -> ../../blobs/<hash>
        made, blobs = root / "snapshots" / "0123abc", root / "blobs"
        blobs.mkdir(parents=True)
        for number, name in enumerate(names):
            (folder / name).rename(blobs / str(number))
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            up = "/".join([".."] * (1 + len(name.parts)))
            (made / name).symlink_to(f"{up}/blobs/{number}")
    elif (
        layout == "kubernetes"
    ):  # a volume: ..data -> ..2026_01_01, and each name at its top -> ..data/<name>
        made = root
        made.mkdir()
        folder.rename(made / "..2026_01_01")
        (made / "..data").symlink_to("..2026_01_01")
        for name in {name.parts[0] for name in names}:
            (made / name).symlink_to(f"..data/{name}")
    else:  # DVC, Bazel, git-annex: absolute links to a store
        made = root
        for name in names:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).symlink_to((folder / name).absolute())
    return made


LAYOUTS = ["hub", "kubernetes", "absolute"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bundles_of_links(layout: str, tmp_path: Path, run: Run) -> None:
    given = small_bundle(tmp_path / "bundle")
    answer = load(given, threads=1)("late parcel")
    made = linked(given, layout)
    Bundle.read(made).verify(made)
    assert load(made, threads=1)("late parcel") == answer
    assert run("inspect", made).code == 0
    (tmp_path / "in.jsonl").write_text('{"text": "late parcel"}\n')
    assert (
        run("predict", made, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl").code == 0
    )
    target = (made / "tokenizer.json").resolve()
    target.write_bytes(target.read_bytes() + b" ")  # content is compared through the link
    for attempt in (lambda: Bundle.read(made).verify(made), lambda: load(made, threads=1)):
        with pytest.raises(BundleError, match=r"tokenizer\.json has \d+ bytes"):
            attempt()


@pytest.mark.parametrize("link", ["tokenizer.json", "fp32", "fp32/model.onnx"])
def test_a_link_to_another_file_is_seen(link: str, tmp_path: Path) -> None:
    given, other = small_bundle(tmp_path / "bundle"), small_bundle(tmp_path / "other")
    for path in other.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[::-1])
    shutil.rmtree(given / link) if (given / link).is_dir() else (given / link).unlink()
    (given / link).symlink_to(other / link)
    with pytest.raises(BundleError, match="was changed: its SHA-256"):
        load(given, threads=1)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin", "missing", "."])
def test_a_link_to_what_is_no_file(target: str, tmp_path: Path) -> None:
    given = small_bundle(tmp_path / "bundle")
    (given / "tokenizer.json").unlink()
    (given / "tokenizer.json").symlink_to(target)
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing"):
        load(given, threads=1)


@pytest.mark.parametrize("layout", [None, *LAYOUTS])
def test_links_beside_graphs_are_listed(layout: str | None, tmp_path: Path) -> None:
    """A graph may name a file of weights that the manifest does not: it must not lead out."""
    given = small_bundle(tmp_path / "bundle")
    made = linked(given, layout) if layout else given
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    (made / "fp32" / "model.onnx.data").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match=r"fp32/model\.onnx\.data is a link and not listed"):
        load(made, threads=1)


def test_weights_beside_a_graph_may_be_links(tmp_path: Path) -> None:
    """In the layout of the hub's cache ONNX Runtime finds them; what it opens was compared."""
    given = small_bundle(tmp_path / "bundle")
    answer = load(given, threads=1)("late parcel")
    graph = given / "fp32" / "model.onnx"
    onnx.save(
        onnx.load(graph), graph, save_as_external_data=True, location="model.onnx.data", size_threshold=100
    )
    names = ("tokenizer.json", "fp32/model.onnx", "fp32/model.onnx.data")
    rewrite(
        given,
        files={n: {"bytes": (given / n).stat().st_size, "sha256": files.sha256(given / n)} for n in names},
    )
    made = linked(given, "hub")
    assert load(made, threads=1, backend="onnxruntime")("late parcel") == answer
    weights = (made / "fp32" / "model.onnx.data").resolve()
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with pytest.raises(BundleError, match=r"model\.onnx\.data was changed"):
        load(made, threads=1, backend="onnxruntime")


@pytest.mark.parametrize("own", [True, False])
def test_engines_are_not_written_through_a_link_of_the_bundle(own: bool, tmp_path: Path) -> None:
    """The user's own folder may be a link, a bundle's may not: it would decide where files are written and deleted."""
    store = pytest.importorskip("headway.runtime.tensorrt.store")
    given = small_bundle(tmp_path / "bundle") if own else tmp_path / "cache"
    given.mkdir(exist_ok=True)
    outside, other = tmp_path / "outside", tmp_path / "other"
    outside.mkdir()
    (given / "engines").symlink_to(outside)
    kept = store.Store([given / "engines", other])
    with kept.locked("key"):
        kept._written(lambda place: (place / "written").touch())
    assert sorted(path.name for path in outside.iterdir()) == ([] if own else ["key.lock", "written"])
    assert other.exists() is own
