"""Every encoder task on an NVIDIA GPU, in every precision that its engines have, against PyTorch in fp32."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.core import tasks
from headway.core.manifest import Bundle
from headway.core.tasks import Row
from headway.core.tolerance import PRECISION
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import cuda, load
from headway.runtime.backends.base import engines_for, load_engine
from headway.runtime.backends.onnxruntime_cuda import LIBRARY, PROVIDER
from headway.train import checkpoint as opener
from tests.conftest import Run
from tests.test_export_tasks import DATA, numbers, untrained

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.available(), reason="there is no GPU")]


def installed(engine: str) -> bool:
    """Whether its package, and of ONNX Runtime the CUDA provider, is there."""
    if find_spec(load_engine(engine).PACKAGE) is None:
        return False
    if engine != "onnxruntime-cuda":
        return True
    import onnxruntime

    return PROVIDER in onnxruntime.get_available_providers() or LIBRARY in os.environ


def test_arrays_on_the_gpu(pretrained: Path, tmp_path: Path) -> None:
    """Given and taken by PyTorch's own streams, with padding and without."""
    if not installed("onnxruntime-cuda"):
        pytest.skip("onnxruntime-cuda is not installed")
    torch: Any = pytest.importorskip("torch")
    folder, _ = untrained("vectors", pretrained, tmp_path, max_length=60)
    options = ExportOptions(output=tmp_path / "bundle", target="cuda", precision="fp32,bf16")
    bundle = export(folder, options).bundle
    rows = [Row(i, list(range(5, 5 + n)), [0] * n) for i, n in enumerate((3, 60, 1, 17))]
    ids = torch.zeros(4, 60, dtype=torch.int64, device="cuda")
    for row in rows:
        ids[row.example, : len(row.ids)] = torch.tensor(row.ids, device="cuda")
    for precision in Bundle.read(bundle).variants:
        pipe: Any = load(bundle, device="cuda", backend="onnxruntime-cuda", precision=precision)
        expected = np.stack(pipe.answers(rows))
        with torch.cuda.stream(torch.cuda.Stream()):
            found = pipe.run_device({"input_ids": ids, "attention_mask": (ids != 0).long()})
            taken = torch.from_dlpack(found["sentence_embedding"]).clone()
        limit = PRECISION[precision].neighbours
        np.testing.assert_allclose(taken.cpu().numpy(), expected, rtol=limit, atol=limit)


@pytest.mark.parametrize("engine", engines_for("cuda"))
@pytest.mark.parametrize("kind", DATA)
def test_every_task(kind: str, engine: str, pretrained: Path, run: Run, tmp_path: Path) -> None:
    if not installed(engine):
        pytest.skip(f"{engine} is not installed")
    target = load_engine(engine).TARGET
    folder, rows = untrained(kind, pretrained, tmp_path, max_length=60)
    export(folder, ExportOptions(output=tmp_path / "bundle", target=target, precision="fp32,fp16,bf16"))
    if engine == "tensorrt":
        assert run("engines", tmp_path / "bundle").code == 0
    opened = opener.open_checkpoint(folder)
    examples = tasks.read_labelled(tasks.load(opened.manifest.task), rows, spec=opened.spec)
    expected = opener.predict(opened, examples)
    for name, variant in Bundle.read(tmp_path / "bundle").variants.items():
        pipe = load(tmp_path / "bundle", device="cuda", backend=engine, precision=name)
        found = pipe.predict(examples)
        if variant.precision == "fp32":
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-3, atol=1e-4)
        alone = [pipe.predict([example])[0] for example in examples]
        limit = PRECISION[variant.precision].neighbours
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=limit, atol=limit)
