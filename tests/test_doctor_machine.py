"""What the doctor says of made-up processors, limits, disks and settings."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from headway.cli.doctoring.base import Finding
from headway.cli.doctoring.environment import Disk, Kernels
from headway.cli.doctoring.subjects import disk, hub, kernels, memory, processor, threads
from headway.core.errors import UnavailableError
from tests.environments import GB, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def told(machine: Machine) -> Callable[..., list[Finding]]:
    """The findings of a subject on the machine, which may have other facts."""

    def call(subject: ModuleType, **facts: object) -> list[Finding]:
        return list(subject.findings(machine.environment(**facts)))

    return call


Told = Callable[..., list[Finding]]


def of(found: list[Finding], subject: str) -> Finding:
    (finding,) = [f for f in found if f.subject == subject]
    return finding


@pytest.mark.parametrize(
    ("flags", "have", "int8", "bf16"),
    [
        ("sse2", "nothing special, without AVX2, ", "advice", "no instruction"),
        ("avx2", "AVX2, without AVX-512, VNNI, AMX, bf16, fp16", "advice", "no instruction"),
        ("avx2 avx_vnni", "AVX2, VNNI, without AVX-512, ", "fine", "no instruction"),
        ("avx2 avx512f avx512_vnni avx512_bf16", "AVX2, AVX-512, VNNI, bf16, without AMX, fp16", "fine", "fast"),
    ],
)  # fmt: skip
def test_processors(machine: Machine, told: Told, flags: str, have: str, int8: str, bf16: str) -> None:
    machine.processor(flags)
    found = told(processor)
    assert f"Made Up 9000: {have}" in of(found, "processor").state
    assert of(found, "int8").grade == int8
    assert of(found, "bf16").state.startswith(bf16)
    assert ("fp32" in [f.subject for f in found]) == ("avx2" not in flags)
    assert ("fp16" in [f.subject for f in found]) == ("fp16" not in flags)


def test_a_processor_that_has_all(machine: Machine, told: Told) -> None:
    machine.processor("avx2 avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16")
    found = told(processor)
    assert of(found, "processor").state.endswith(": AVX2, AVX-512, VNNI, AMX, bf16, fp16")
    assert "(AMX)" in of(found, "int8").state
    assert {f.grade for f in found} == {"fine"}


def test_a_processor_that_tells_nothing(told: Told) -> None:
    assert of(told(processor), "processor").remedy == processor.MEASURE


def test_threads_of_affinity_and_cgroup(machine: Machine, told: Told) -> None:
    assert told(threads)[0].state == "4 (4 processors by affinity, no cgroup limit)"
    (machine.folder / "cgroup").mkdir()
    (machine.folder / "cgroup" / "cpu.max").write_text("150000 100000")
    budget, blind = told(threads)
    assert budget.state == "2 (4 processors by affinity, cgroup limit 1.5)"
    assert blind.remedy == "export OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2"
    machine.variables["OMP_NUM_THREADS"] = "2"
    assert len(told(threads)) == 1


@pytest.mark.parametrize(
    ("name", "given", "remedy"),
    [
        ("OMP_NUM_THREADS", "5", "export OMP_NUM_THREADS=4"),
        ("OMP_NUM_THREADS", "8,2", "export OMP_NUM_THREADS=4"),
        ("OPENBLAS_NUM_THREADS", "64", "export OPENBLAS_NUM_THREADS=4"),
        ("MKL_NUM_THREADS", "0", "export MKL_NUM_THREADS=4"),
        ("OMP_NUM_THREADS", "many", "export OMP_NUM_THREADS=4"),
        ("RAYON_NUM_THREADS", "1", "export RAYON_NUM_THREADS=4"),
        ("TOKENIZERS_PARALLELISM", "false", "unset TOKENIZERS_PARALLELISM"),
        ("OMP_NUM_THREADS", "4", None),
        ("OMP_NUM_THREADS", "1", None),
        ("RAYON_NUM_THREADS", "0", None),
        ("TOKENIZERS_PARALLELISM", "true", None),
    ],
)
def test_settings_of_threads(machine: Machine, told: Told, name: str, given: str, remedy: str | None) -> None:
    machine.variables[name] = given
    found = told(threads)[1:]
    assert [f.remedy for f in found] == ([remedy] if remedy else [])
    assert all(name in f.state for f in found)


def meminfo(machine: Machine, free: int) -> None:
    (machine.proc / "meminfo").write_text(
        f"MemTotal: 99 kB\nMemFree: 1 kB\nMemAvailable:  {free // 1024} kB\n"
    )


def test_memory_of_the_machine(machine: Machine, told: Told) -> None:
    assert told(memory) == []
    meminfo(machine, 9 * GB)
    assert told(memory) == [Finding("memory", "9.0 GB free")]
    meminfo(machine, GB)
    assert "ps aux" in told(memory)[0].remedy


@pytest.mark.parametrize("version", [1, 2])
def test_memory_of_cgroups(machine: Machine, told: Told, version: int) -> None:
    """The tightest group holds; what the kernel keeps of files does not count."""
    meminfo(machine, 90 * GB)
    own, root = {1: "4:memory:/a/b\n", 2: "0::/a/b\n"}[version], machine.folder / "cgroup"
    (machine.proc / "self" / "cgroup").write_text(own)
    names, idle = {
        1: (("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"),
        2: (("memory.max", "memory.current"), "inactive_file"),
    }[version]
    for place, most in (("a/b", 8 * GB), ("a", 5 * GB), ("", {1: 2**63 - 4096, 2: "max"}[version])):
        group = root / ("memory" if version == 1 else "") / place
        group.mkdir(parents=True, exist_ok=True)
        (group / names[0]).write_text(f"{most}\n")
        (group / names[1]).write_text(f"{4 * GB}\n")
        (group / "memory.stat").write_text(f"anon 1\n{idle} {3 * GB}\n")
    assert told(memory) == [Finding("memory", "4.0 GB free (by a cgroup's limit)")]
    (root / ("memory" if version == 1 else "") / "a" / names[1]).write_text(f"{7 * GB}\n")
    assert told(memory)[0].state.startswith("1.0 GB free")
    assert "docker run --memory" in told(memory)[0].remedy


@pytest.mark.parametrize(
    ("use", "free", "writable", "grade", "part"),
    [
        ("temporary", 3 * GB, True, "fine", ""),
        ("working folder", GB, True, "advice", "cd "),
        ("cache", GB // 100, True, "advice", "HF_HOME="),
        ("temporary", GB // 100, True, "prevents", "TMPDIR="),
        ("cache", 3 * GB, False, "advice", "HF_HOME="),
    ],
)
def test_disks(told: Told, use: str, free: int, writable: bool, grade: str, part: str) -> None:
    (found,) = told(disk, disks=(Disk(use, Path("/made/up place"), free, writable),))
    assert found.grade == grade
    assert part in found.remedy
    assert "/made/up place" in found.state
    if grade == "prevents":
        assert isinstance(found.error, UnavailableError)
        assert "'/made/up place'" in found.remedy


@pytest.mark.parametrize(
    ("use", "grade", "part"), [("temporary", "prevents", "TMPDIR="), ("working folder", "advice", "cd ")]
)
def test_a_folder_that_is_not_there(told: Told, use: str, grade: str, part: str) -> None:
    (found,) = told(disk, disks=(Disk(use, None, 0, writable=False),))
    assert (found.grade, part in found.remedy) == (grade, True)
    assert f"there is no {use}" in found.state


@pytest.mark.parametrize(
    ("state", "grade", "remedy"),
    [
        (Kernels("avx512", ("scalar", "avx2", "avx512")), "fine", ""),
        (Kernels("scalar", ("scalar", "avx2")), "advice", "unset HEADWAY_SIMD"),
        (Kernels(problem='HEADWAY_SIMD names "mmx"'), "prevents", "unset HEADWAY_SIMD"),
        (Kernels(problem="undefined symbol: x"), "prevents", kernels.AGAIN),
    ],
)
def test_the_extension(told: Told, state: Kernels, grade: str, remedy: str) -> None:
    (found,) = told(kernels, kernels=state)
    assert (found.grade, found.remedy) == (grade, remedy)


def test_the_hub_offline(machine: Machine, told: Told) -> None:
    machine.variables |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(machine.folder / "hf")}
    (found,) = told(hub)
    assert "0 models" in found.state
    assert found.remedy.startswith("unset HF_HUB_OFFLINE")
    (machine.folder / "hf" / "hub" / "models--a--b").mkdir(parents=True)
    (found,) = told(hub)
    assert (found.grade, "1 models" in found.state) == ("fine", True)


def test_settings_of_the_hub(machine: Machine, told: Told) -> None:
    machine.variables |= {
        "HF_ENDPOINT": "http://user:secret@hub.example:8080/x",
        "HF_HUB_CACHE": "/somewhere",
        "HF_DATASETS_OFFLINE": "true",
        "HEADWAY_CACHE": "off",
    }
    found = told(hub)
    assert found[0].state.split(";")[0] == "HF_ENDPOINT is hub.example"
    assert "/somewhere" in found[0].state
    assert "secret" not in str(found)
    assert found[1].remedy == "unset HF_DATASETS_OFFLINE"
    assert "by rule" in of(found, "choice").state
