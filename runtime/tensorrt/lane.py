"""An engine at work on one stream: an execution context for each shape, all in one scratch memory.

TensorRT wants a context of its own for each shape that is captured; as only one runs at a time, they share the memory for
what layers hand on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike

from headway.core.errors import UnavailableError
from headway.core.manifest import Tensor
from headway.runtime.cuda import Device
from headway.runtime.lanes import Lane, Tensors
from headway.runtime.shapes import Place
from headway.runtime.tensorrt.library import Library


@dataclass(frozen=True)
class Opened:
    """An engine on a GPU."""

    library: Library
    device: Device
    engine: Any
    _lock: Lock = field(default_factory=Lock)

    def context(self) -> Any:
        """A new execution context without memory of its own. Raises UnavailableError."""
        strategy = self.library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        self.device.use()
        with self._lock:
            made = self.engine.create_execution_context(strategy)
        if made is None:
            raise UnavailableError(
                "memory for a TensorRT context", "use smaller batches, or fewer models at once"
            )
        return made

    def dtype(self, tensor: Tensor) -> np.dtype[Any]:
        kind = self.library.module.nptype(self.engine.get_tensor_dtype(tensor.name))
        return np.dtype(cast(DTypeLike, kind))


def set_input_shape(context: Any, name: str, shape: tuple[int, ...]) -> None:
    """Tell a context an input's shape. Raises UnavailableError if the engine was not built for it."""
    if not context.set_input_shape(name, shape):
        raise UnavailableError(
            f"a TensorRT engine for {name} of {shape}", "build it again with `headway engines BUNDLE --again`"
        )


class TensorRtLane(Lane[Any]):
    """A batch in an engine."""

    def __init__(self, opened: Opened, tensors: Tensors) -> None:
        super().__init__(opened.device, opened.device.stream(), tensors)
        self._opened = opened
        self._scratch = opened.device.empty(int(opened.engine.device_memory_size_v2))

    def prepared(self, place: Place) -> Any:
        context = self._opened.context()
        context.set_device_memory(self._scratch.pointer, self._scratch.nbytes)
        context.set_optimization_profile_async(place.profile, self.stream.pointer)
        self.stream.synchronize()
        for tensor in self.tensors.declared.inputs:
            set_input_shape(context, tensor.name, (place.rows, place.length))
        for name, room in self.rooms.items():
            context.set_tensor_address(name, room.device.pointer)
        return context

    def execute(self, context: Any) -> None:
        if not context.execute_async_v3(self.stream.pointer):
            raise UnavailableError(
                "a TensorRT engine's answer", "ask headway doctor, or use another --backend"
            )
