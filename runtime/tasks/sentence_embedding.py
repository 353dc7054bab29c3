"""sentence-embedding: prefixes of vectors, forms for storage, and how alike texts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.core import tasks
from headway.core.errors import UsageError
from headway.core.tasks import Output, Spec
from headway.core.tasks import sentence_embedding as task
from headway.core.tasks.sentence_embedding import Example, Stored
from headway.runtime.tasks import base

if TYPE_CHECKING:
    from headway.runtime.pipeline import EncoderPipeline


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """so many of the vector's first, of length 1 again where vectors are normalised; None: all"""
    output: Stored = "float32"
    """how the vector of a text is stored; of records with several texts float32 alone"""
    prompt_name: str | None = None
    """the bundle's prompt of that name is put before each text; None: its default prompt"""
    prompt: str | None = None
    """this is put before each text, whatever `prompt_name` is"""


def prepare(examples: Sequence[Example], spec: Spec, call: Call) -> Sequence[Example]:
    """The examples with the prompt that a call asks for. Raises UsageError."""
    prompt = call.prompt
    if prompt is None and call.prompt_name is not None:
        prompts = {"query": "", "document": ""} | spec.settings.prompts
        if call.prompt_name not in prompts:
            raise UsageError(
                "prompt_name", f"the bundle has no '{call.prompt_name}'; it has {', '.join(prompts)}"
            )
        prompt = prompts[call.prompt_name]
    return examples if prompt is None else [replace(example, prompt=prompt) for example in examples]


def decode(examples: Sequence[Example], outputs: Sequence[Output], spec: Spec, call: Call) -> list[Any]:
    _check(outputs, call)
    if call.output != "float32" and any(len(e.texts) > 1 for e in examples):
        raise UsageError("output", f"'{call.output}' is for inputs of one text each")
    return task.decode(examples, outputs, spec, call.dimensions, call.output)


def _check(outputs: Sequence[Output], call: Call) -> None:
    width = len(outputs[0].logits)
    if call.dimensions is not None and call.dimensions > width:
        raise UsageError("dimensions", f"{call.dimensions} is more than the vector's {width}")


def similarity(
    pipe: EncoderPipeline, a: str | Sequence[str], b: str | Sequence[str], **settings: Any
) -> NDArray[np.float64]:
    """How alike each text of one side and each of the other are (A, B), by the bundle's similarity function.

    `settings` are those of a call.

    Raises InputError and UsageError.
    """
    if not isinstance(pipe.spec.settings, task.Settings):
        raise UsageError("similarity", f"wants a sentence-embedding bundle, not {pipe.manifest.task}")
    call = base.settings(pipe.manifest.task, settings)
    if call.output != "float32":
        raise UsageError("output", "similarity is of float32 vectors")
    sides = [[side] if isinstance(side, str) else list(side) for side in (a, b)]
    examples = [tasks.read_input(pipe.task, text, i) for i, text in enumerate(sides[0] + sides[1])]
    if not sides[0] or not sides[1]:
        return np.zeros((len(sides[0]), len(sides[1])))
    outputs = pipe.outputs(prepare(cast(Any, examples), pipe.spec, call))
    _check(outputs, call)
    vectors = task.prefixes(np.stack([o.logits for o in outputs]), call.dimensions, pipe.spec)  # (A + B, D)
    both = vectors[: len(sides[0])], vectors[len(sides[0]) :]
    return task.similarities(*both, pipe.spec.settings.similarity_fn_name)
