# Everything a fresh machine needs: `make demo` and `make test` set up .venv by themselves.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(shell find cpp_ext -name '*.cpp' -o -name '*.hpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h')
CPP := $(SOURCES) $(shell find cpp_ext -name '*.txt' -o -name '*.cmake')
FOLDERS := core train export runtime bench cpp_ext cli examples
# what a wheel may lack: the compiled module, data files, modules that only some commands import
WHEEL_TESTS := $(filter-out tests/test_kernel_stub.py,$(wildcard tests/test_kernel_*.py)) \
	$(addprefix tests/,test_cli.py test_runtime.py test_runtime_tasks.py test_bulk.py test_front.py test_demo.py \
	test_report.py test_train.py)

# one process a processor; tests of one file mostly stay together
PARALLEL := -n auto --dist worksteal

.PHONY: demo docs test lint sanitize wheel-test bench-gate gpu-wheels gpu-check peers optimum-check report-check format clean

demo: .venv/.ready
	$(BIN)/headway demo --overwrite

test: .venv/.ready
	$(BIN)/pytest -q $(PARALLEL) --durations=15

# The site in build/site, which loads nothing from elsewhere.
docs: .venv/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	! grep -rlE '<(script|link|img)[^>]+(src|href)="?(https?:)?//' --include=*.html build/site

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(SOURCES)

format: .venv/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(SOURCES)

# The C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: .venv/.ready
	$(BIN)/cmake -S cpp_ext -B build/asan -DHEADWAY_SANITIZE=ON -DHEADWAY_WERROR=ON -DHEADWAY_CUDA=OFF
	$(BIN)/cmake --build build/asan --parallel 2
	$(BIN)/ctest --test-dir build/asan --parallel 2 --output-on-failure

# sdist, a wheel from that sdist, and the tests on the installed wheel with the sources out of reach. CUDA is compiled for
# .venv.
wheel-test: .venv/.ready
	rm -rf build/wheel && mkdir -p build/wheel/run
	$(BIN)/python -m build --no-isolation --config-setting=cmake.define.HEADWAY_CUDA=OFF --outdir build/wheel/dist
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/pip install --quiet build/wheel/dist/*.whl -c requirements.lock
	bash tests/base_install.sh build/wheel/venv
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> `build/wheel/venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"`/locked.pth
	cp -r tests pyproject.toml build/wheel/run/
	cd build/wheel/run && ../venv/bin/python -m pytest -q $(PARALLEL) $(WHEEL_TESTS)

# Environments of the peers that do not fit into .venv; benchmarks are told of them by HEADWAY_OPTIMUM_PYTHON
# (build/optimum/bin/python), HEADWAY_FASTEMBED_PYTHON and HEADWAY_OPTIMUM_INTEL_PYTHON.
peers: build/optimum/.ready build/fastembed/.ready build/optimum-intel/.ready

# Tiny fp32 bundles of every task opened by optimum-onnx, in an environment with the pins that library needs; and, with
# make optimum-check BUNDLE=demo-output/bundle CHECKPOINT=demo-output/checkpoint, another one.
optimum-check: .venv/.ready build/optimum/.ready
	rm -rf build/optimum-bundles
	$(BIN)/python -m tests.optimum_check --make build/optimum-bundles
	build/optimum/bin/python tests/optimum_check.py --check build/optimum-bundles
	$(if $(BUNDLE),build/optimum/bin/python tests/optimum_check.py $(BUNDLE) $(CHECKPOINT))

build/optimum/.ready:
	$(PYTHON) -m venv build/optimum
	build/optimum/bin/pip install --quiet torch==2.13.0
	build/optimum/bin/pip install --quiet 'optimum-onnx[onnxruntime]==0.1.0' transformers==4.57.6 onnxruntime==1.31.1 requests msgspec
	touch $@

build/fastembed/.ready:
	$(PYTHON) -m venv build/fastembed
	build/fastembed/bin/pip install --quiet fastembed==0.9.1 onnxruntime==1.31.1 msgspec numpy
	touch $@

# Without torchvision, which it uses for images alone: one that does not fit torch's build breaks the import of transformers.
build/optimum-intel/.ready:
	$(PYTHON) -m venv build/optimum-intel
	build/optimum-intel/bin/pip install --quiet 'optimum-intel[openvino]==2.2.0' torch==2.13.0 transformers==5.5.4 \
		openvino==2026.4.1 msgspec
	build/optimum-intel/bin/pip uninstall --quiet --yes torchvision
	touch $@

# Reports of `headway bench` in a headless Chromium, as wide as a phone, a tablet and a desk; and, with
# make report-check PAGE=FOLDER/report.html, another one. Pictures are left in build/report.
report-check: .venv/.ready build/browser/.ready
	rm -rf build/report
	$(BIN)/python -m tests.report_check --make build/report
	build/browser/bin/python tests/report_check.py build/report/*.html $(PAGE)

# Chromium is the machine's own, or Debian's package.
build/browser/.ready:
	command -v chromium-headless-shell || command -v chromium || command -v google-chrome || { apt-get update -qq \
		&& apt-get install -y -qq --no-install-recommends chromium-headless-shell fonts-dejavu-core; }
	$(PYTHON) -m venv build/browser
	build/browser/bin/pip install --quiet playwright==1.65.2
	touch $@

# Speed and memory of this tree against another commit, in turns in one run, on the bundle of `make demo`; exit code 4 if
# anything is worse by more than TOLERANCE, beyond chance, twice.
BASE ?= $(shell git merge-base HEAD origin/HEAD 2>/dev/null || git rev-parse HEAD~1)
ROUNDS ?= 12
TOLERANCE ?= 0.1
bench-gate: .venv/.ready
	rm -rf build/base && mkdir -p build/base
	git archive --prefix=source/ $(BASE) | tar -x -C build/base
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --config-settings=cmake.define.HEADWAY_CUDA=OFF \
		--target build/base/site build/base/source
	HEADWAY_CACHE=off $(BIN)/python -m headway.bench.gate demo-output/bundle --base build/base/site/headway \
		--rounds $(ROUNDS) --tolerance $(TOLERANCE)

# Wheels for a machine with a GPU and Python 3.12 that has torch, transformers, onnxruntime and little else.
GPU_WHEELS := msgspec cyclopts attrs docstring_parser rich-rst optimum onnx-ir nanobind
gpu-wheels:
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --constraint requirements.lock \
		--dest build/gpu/wheels $(GPU_WHEELS)

# On a machine with an NVIDIA GPU, by its own python3 and the packages that it has (wheels in build/gpu/wheels are added, see gpu-wheels):
# build, test what needs a GPU, time kernels, check and time models. HEADWAY_CUDA_PROVIDER names ONNX Runtime's CUDA
# provider where it comes apart. The report is in GPU_REPORT.
GPU_REPORT ?= build/gpu/report
GPU_SITE := build/gpu/site
gpu-check:
	rm -rf $(GPU_SITE) && mkdir -p $(GPU_REPORT)
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --config-settings=cmake.define.HEADWAY_CUDA=ON \
		--target $(GPU_SITE) . $(wildcard build/gpu/wheels/*.whl)
	cp -r tests pyproject.toml $(GPU_SITE)/
	cmake -S cpp_ext -B build/gpu/cpp -DHEADWAY_CUDA=ON && cmake --build build/gpu/cpp --parallel
	ctest --test-dir build/gpu/cpp -L gpu --output-on-failure
	cd $(GPU_SITE) && PYTHONPATH=. $(PYTHON) -m pytest -q -m gpu tests 2>&1 | tee $(CURDIR)/$(GPU_REPORT)/tests.txt
	PYTHONPATH=$(GPU_SITE) $(PYTHON) -m headway.bench.cuda_kernels | tee $(GPU_REPORT)/kernels.jsonl
	PYTHONPATH=$(GPU_SITE) $(PYTHON) -m headway.bench.gpu_check --output $(GPU_REPORT)/models

.venv/.locked: requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	touch $@

.venv/.ready: .venv/.locked pyproject.toml $(CPP)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv build demo-output
