"""Every encoder task on an NVIDIA GPU, in every precision that its engines have, against PyTorch in fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headway.core import tasks
from headway.core.errors import UnavailableError
from headway.core.manifest import Bundle
from headway.core.tolerance import PRECISION
from headway.export.bundle import export
from headway.export.options import ExportOptions
from headway.runtime import cuda, load
from headway.runtime.backends.base import engines_for, load_engine
from headway.train import checkpoint as opener
from tests.test_export_tasks import DATA, numbers, untrained

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.available(), reason="there is no GPU")]


@pytest.mark.parametrize("engine", engines_for("cuda"))
@pytest.mark.parametrize("kind", DATA)
def test_every_task(kind: str, engine: str, pretrained: Path, tmp_path: Path) -> None:
    target = load_engine(engine).TARGET
    folder, rows = untrained(kind, pretrained, tmp_path, max_length=60)
    export(folder, ExportOptions(output=tmp_path / "bundle", target=target, precision="fp32,fp16,bf16"))
    opened = opener.open_checkpoint(folder)
    examples = tasks.read_labelled(tasks.load(opened.manifest.task), rows, spec=opened.spec)
    expected = opener.predict(opened, examples)
    for name, variant in Bundle.read(tmp_path / "bundle").variants.items():
        try:
            pipe = load(tmp_path / "bundle", device="cuda", backend=engine, precision=name)
        except UnavailableError as error:
            pytest.skip(str(error))
        found = pipe.predict(examples)
        if variant.precision == "fp32":
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-3, atol=1e-4)
        alone = [pipe.predict([example])[0] for example in examples]
        limit = PRECISION[variant.precision].neighbours
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=limit, atol=limit)
