"""TensorRT played by ONNX Runtime, on the driver that `cuda_driver` plays: what is wrong use there fails here, too.

A plan is the graph itself behind a line of JSON. Only what `headway.runtime.tensorrt` uses is there.
"""

from __future__ import annotations

import ctypes
import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.cuda_driver import Driver

VERSION = "11.4.0"
SCRATCH = 4096
"""bytes that every context wants for what its layers hand on"""
KINDS = {onnx.TensorProto.INT64: np.int64, onnx.TensorProto.FLOAT: np.float32}


class Module(ModuleType):
    """What `import tensorrt` gives."""

    def __init__(self, driver: Driver, version: str = VERSION) -> None:
        super().__init__("tensorrt")
        self.driver, self.__version__ = driver, version
        self.builds: list[dict[str, Any]] = []
        """what each build was asked for"""
        self.refuses: str | None = None
        """what the builder says instead of building"""
        self.unknown: tuple[str, ...] = ()
        """operators that the parser does not take"""
        self.contexts: list[Context] = []
        self.opens = True
        self.captures = True
        self.ILogger = Logger
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        flags = ("TF32", "VERSION_COMPATIBLE", "STRIP_PLAN", "REFIT_IDENTICAL")
        self.BuilderFlag = SimpleNamespace(**{flag: flag for flag in flags})
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
        self.Builder = lambda log: Builder(self, log)
        self.OnnxParser = lambda network, log: Parser(self, network)
        self.Runtime = lambda log: Runtime(self, log)
        self.Refitter = lambda engine, log: Refitter(engine)
        self.OnnxParserRefitter = lambda refitter, log: refitter
        self.nptype = lambda kind: kind


def installed(monkeypatch: pytest.MonkeyPatch, driver: Driver, version: str = VERSION) -> Module:
    """The TensorRT that is imported from now on."""
    module = Module(driver, version)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


class Logger:
    class Severity:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    def log(self, level: int, message: str) -> None:
        raise NotImplementedError


class Builder:
    def __init__(self, module: Module, log: Any) -> None:
        self.module, self.log = module, log

    def create_network(self, flags: int) -> Network:
        assert flags == 1 << self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def create_builder_config(self) -> Config:
        return Config()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        self.log.log(Logger.Severity.WARNING, "a warning")
        if not self.module.driver.current():
            self.log.log(Logger.Severity.ERROR, "no context")
            return None
        asked = {"flags": sorted(config.flags), "profiles": config.profiles, "workspace": config.workspace}
        asked["timings"] = config.cache.content.decode() if config.cache else None
        self.module.builds.append(asked)
        if self.module.refuses is not None:
            self.log.log(Logger.Severity.ERROR, self.module.refuses)
            return None
        assert network.content is not None
        if config.cache is not None:
            config.cache.content += b"+"
        stripped = "STRIP_PLAN" in config.flags
        head = {"version": self.module.__version__, "profiles": config.profiles, "stripped": stripped}
        return json.dumps(head).encode() + b"\n" + (b"" if stripped else network.content)


class Network:
    content: bytes | None = None
    graph: Any = None

    @property
    def num_inputs(self) -> int:
        return len(self.graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self.graph.output)

    def get_input(self, i: int) -> Any:
        value = self.graph.input[i]
        return SimpleNamespace(name=value.name, shape=[-1] * len(value.type.tensor_type.shape.dim))


class Parser:
    def __init__(self, module: Module, network: Network) -> None:
        self.module, self.network, self.errors = module, network, list[Any]()

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, i: int) -> Any:
        return self.errors[i]

    def parse_from_file(self, path: str) -> bool:
        try:
            model = onnx.load(path)
        except Exception as error:  # noqa: BLE001 (of Protocol Buffers)
            self.errors = [_error(str(error), "", "")]
            return False
        self.errors = [
            _error("false", node.op_type, node.name)
            for node in model.graph.node
            if node.op_type in self.module.unknown
        ]
        self.network.content, self.network.graph = Path(path).read_bytes(), model.graph
        return not self.errors


def _error(said: str, operator: str, name: str) -> Any:
    return SimpleNamespace(desc=lambda: said, node_operator=lambda: operator, node_name=lambda: name)


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, least: Any, best: Any, most: Any) -> None:
        self.shapes[name] = [list(least), list(best), list(most)]


class Cache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content or b"fresh"

    def combine(self, other: Cache, ignore: bool) -> bool:
        self.content = self.content + b"|" + other.content
        return not ignore


class Config:
    def __init__(self) -> None:
        self.flags, self.profiles = {"TF32"}, list[Any]()
        self.workspace: int | None = None
        self.cache: Cache | None = None

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.remove(flag)

    def set_memory_pool_limit(self, pool: str, nbytes: int) -> None:
        self.workspace = nbytes

    def create_timing_cache(self, content: bytes) -> Cache | None:
        return None if content.startswith(b"other") else Cache(content)

    def set_timing_cache(self, cache: Cache, ignore: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> Cache | None:
        return self.cache


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, module: Module, log: Any) -> None:
        self.module, self.log = module, log

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        head, _, content = plan.partition(b"\n")
        try:
            told = json.loads(head)
        except ValueError:
            told = {}
        if not self.module.opens or told.get("version") != self.module.__version__:
            self.log.log(Logger.Severity.ERROR, "the plan is of another version")
            return None
        return Engine(self.module, told, content)


class Refitter:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def refit_from_file(self, path: str) -> bool:
        self.engine.set_content(Path(path).read_bytes())
        return True

    def refit_cuda_engine(self) -> bool:
        self.engine.told["stripped"] = False
        return True


class Engine:
    device_memory_size_v2 = SCRATCH

    def __init__(self, module: Module, told: dict[str, Any], content: bytes) -> None:
        self.module, self.told = module, told
        self.values: list[Any] = []
        if content:
            self.set_content(content)

    def set_content(self, content: bytes) -> None:
        graph = onnx.load_from_string(content).graph
        self.inputs, self.outputs = [v.name for v in graph.input], [v.name for v in graph.output]
        self.values = [*graph.input, *graph.output]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    @property
    def num_io_tensors(self) -> int:
        return len(self.values)

    def get_tensor_name(self, i: int) -> str:
        return str(self.values[i].name)

    def get_tensor_dtype(self, name: str) -> Any:
        return KINDS[next(v for v in self.values if v.name == name).type.tensor_type.elem_type]

    def create_execution_context(self, strategy: str) -> Context:
        assert not self.told["stripped"]
        assert self.module.driver.current()
        made = Context(self)
        self.module.contexts.append(made)
        return made


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.module = engine, engine.module
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = self.profile = self.stream = self.runs = self.captured = 0

    def set_device_memory(self, pointer: int, nbytes: int) -> None:
        assert nbytes >= SCRATCH
        self.scratch = pointer

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = self.engine.told["profiles"][index]
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.profile[name]  # type: ignore[index]
        self.shapes[name] = shape
        return all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, stream: int) -> bool:
        driver = self.module.driver
        assert driver.current()
        assert stream in driver.streams
        assert self.stream in (0, stream), "a context on two streams"
        others = {c.stream for c in self.module.contexts if c.scratch == self.scratch and c.stream}
        assert others <= {stream}, "two streams in the same memory"
        self.stream = stream
        if stream in driver.capturing:
            assert self.runs, "captured before it was run once"
            if not self.module.captures:
                return False
            self.captured += 1
        self.runs += 1
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        driver.give(stream, lambda: self._compute(shapes, addresses))
        return True

    def _compute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        engine = self.engine
        given = {n: _read(addresses[n], shapes[n], engine.get_tensor_dtype(n)) for n in engine.inputs}
        for name, value in zip(engine.outputs, engine.session.run(engine.outputs, given), strict=True):
            assert self.module.driver.inside(addresses[name], value.nbytes)
            ctypes.memmove(addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)


def _read(address: int, shape: tuple[int, ...], kind: Any) -> Any:
    memory = (ctypes.c_byte * (np.dtype(kind).itemsize * math.prod(shape))).from_address(address)
    return np.frombuffer(memory, kind).reshape(shape).copy()
