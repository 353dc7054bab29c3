"""What each precision costs in quality on real data: `python -m headway.bench.precisions --help`.

Every checkpoint that `headway.bench.quality` trained is exported, and each variant judged on the case's test set
through the runtime. Nothing is gated by quality here, so that every loss is seen; parity's limits hold as always.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec

from headway.bench.quality import CASES, Case
from headway.core import tasks
from headway.export import bundle
from headway.export.options import ExportOptions


def main() -> None:
    """Export the checkpoints that have no result in the folder yet, then write the table of all."""
    parser = argparse.ArgumentParser(prog="python -m headway.bench.precisions", description=main.__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the folder of headway.bench.quality")
    parser.add_argument("--output", type=Path, required=True, help="file for the table, in Markdown")
    parser.add_argument("--precision", default="fp32,int8", help="variants to make; fp32 is one")
    parser.add_argument("--only", action="append", help="a case; may be given several times")
    given = parser.parse_args()
    for case in CASES:
        result = given.work / f"{case.name}-precisions.json"
        checkpoint = given.work / f"{case.name}-checkpoint"
        if result.exists() or not checkpoint.is_dir() or (given.only and case.name not in given.only):
            continue
        print(case.name, flush=True)
        figures = measure(case, checkpoint, given.precision, given.work)
        print(json.dumps(figures), flush=True)
        result.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    given.output.write_text(table(given.work), encoding="utf-8")


def measure(case: Case, checkpoint: Path, precision: str, work: Path) -> dict[str, Any]:
    """Figures of the checkpoint and of every variant on the case's test set."""
    output = work / f"{case.name}-bundle"
    options = ExportOptions(
        output=output,
        precision=precision,
        eval=labelled_file(case, "test", work),
        calibration=None if case.folder == "squad_retrieval" else labelled_file(case, "dev", work),
        columns=case.options.get("columns"),
        overwrite=True,
    )
    report = bundle.export(checkpoint, options)
    sizes = {name: _bytes(output / name) for name in report.variants}
    return {
        "checkpoint": report.reference,
        "variants": {
            name: msgspec.to_builtins(v) | {"bytes": sizes[name]} for name, v in report.variants.items()
        },
    }


def labelled_file(case: Case, split: str, work: Path) -> Path:
    """What `headway.bench.quality` cut for the case; of a collection its folder, the test queries as those of dev."""
    if case.folder == "squad_retrieval":
        judged = work / f"retrieval-judged-{case.test}"
        shutil.copytree(work / f"retrieval-test-{case.test}", judged, dirs_exist_ok=True)
        queries = (judged / "queries.jsonl").read_text("utf-8")
        (judged / "queries.jsonl").write_text(queries.replace('"test"', '"dev"'), encoding="utf-8")
        return judged
    return work / f"{case.name}-{split}.{'txt' if case.task == 'text-generation' else 'jsonl'}"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


INTRODUCTION = """# Quality of every precision

Written by `python -m headway.bench.precisions --work FOLDER --output docs/precisions.md` from the checkpoints of
[quality.md](quality.md), which stand in FOLDER. Each is exported with its dev set as `--calibration`, and each variant
judged on its test set through the runtime, with the settings (temperature, thresholds) that were fitted for it.

- Shares in percent with the difference from fp32 in points; perplexities as they are, lower is better.
- "neighbours": the largest difference of a logit between a text alone and in a batch, as a share of the logits'
  spread. "fp32 layers": layers that went back to fp32 because parity's limits did not hold with them.
"""


def table(work: Path) -> str:
    """All results as one page in Markdown."""
    missing = [case.name for case in CASES if not (work / f"{case.name}-precisions.json").exists()]
    lines = [
        *INTRODUCTION.splitlines(),
        *([f"- Not measured yet: {', '.join(missing)}."] if missing else []),
        "",
        "| data | task | figure | checkpoint | variant | quality | difference | mean difference of logits | neighbours | fp32 layers | MB |",
        "|---|---|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for case in CASES:
        path = work / f"{case.name}-precisions.json"
        if not path.exists():
            continue
        read = json.loads(path.read_text("utf-8"))
        name = case.shown[0]
        falling = name in tasks.FIGURES_FALLING
        scale = 1.0 if falling else 100.0
        exact = read["variants"]["fp32"]["quality"][name]
        for place, (precision, variant) in enumerate(read["variants"].items()):
            head = (case.name, case.task, name, f"{scale * read['checkpoint'][name]:.2f}")
            found, parity = variant["quality"][name], variant["parity"]
            cells = [
                *(head if place == 0 else ("", "", "", "")),
                precision,
                f"{scale * found:.2f}",
                f"{scale * (found - exact):+.2f}" if precision != "fp32" else "",
                f"{parity['mean']:.1e}",
                f"{parity['neighbours']:.1e}",
                str(len(variant["kept"])),
                f"{variant['bytes'] / 1e6:.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
