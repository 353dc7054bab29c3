"""The CUDA kernels that writing needs, on the GPU that is used."""

from __future__ import annotations

from typing import Any

from headway.core.errors import UnavailableError
from headway.runtime.cuda import Device


def open_kernels(device: Device) -> Any:
    """`headway.cpp_ext.cuda`. Raises UnavailableError where it was not built, or finds no GPU."""
    from headway.cpp_ext import cuda

    device.use()
    try:
        cuda.check_device()
    except cuda.UnavailableError as error:
        raise UnavailableError(
            f"{error.what}, which models that write need on a GPU,", error.remedy
        ) from error
    return cuda
