# The two main commands are `make quickstart` and `make test`. Both install what they need, once.
PYTHON ?= python3.11
BIN := .venv/bin
# gpu=true: the CUDA builds. An environment that was installed so needs no further gpu=true.
gpu ?= $(if $(wildcard .venv/gpu),true)
BUILD := $(if $(filter true,$(gpu)),gpu,cpu)
INSTALLED := .venv/installed-$(shell cat requirements/$(BUILD).lock setup.py install/* | sha256sum | cut -c1-16)

.PHONY: install quickstart policy referee referee-small policy-vstar test test-fast chaos mutants docs lint clean

install: $(INSTALLED)  ## gpu=true: for GPUs, from requirements/gpu.lock

$(INSTALLED):
	PYTHON=$(PYTHON) install/install.sh $(BUILD)
	@rm -f .venv/installed-*
	@touch $@

run_dir ?= runs/quickstart-$(shell date +%Y%m%d-%H%M%S)

quickstart: install data/shapes  ## smoke=true: only three steps
	$(BIN)/ser train configs/experiment/quickstart.yaml run_dir=$(run_dir) \
		$(if $(filter true,$(smoke)),steps=3 eval.samples=16)

# Made again when the code of the embedded world has changed.
data/shapes: rollout/dataset/shapes.py | install
	rm -rf $@
	$(BIN)/ser data make-shapes $@ --train 1500 --val 64 --test 512 --questions 1 --seed 7

# The embedded weights, as described in their model cards. A run that exists in runs/ continues from its checkpoint.
policy referee referee-small: data/shapes-sft
policy-vstar: runs/vstar-start
policy referee referee-small policy-vstar: install
	$(BIN)/ser sft configs/sft/$@.yaml resume=auto
	install -m 644 runs/sft-$@/model/* assets/$@/

data/shapes-sft: rollout/dataset/shapes.py | install
	rm -rf $@
	$(BIN)/ser data make-shapes $@ --train 20000 --val 512 --test 1024

data/shapes-vstar: rollout/dataset/shapes.py rollout/dataset/shapes_vstar.py benchmarks/vstar_questions.py | install
	rm -rf $@
	$(BIN)/ser data make-shapes $@ --format vstar --train 6000 --val 256 --test 400 --questions 1 --seed 11
	$(BIN)/python -m benchmarks.vstar_questions $@/train.json
	$(BIN)/python -m benchmarks.vstar_questions $@/test.json

runs/vstar-start: data/shapes-vstar
	$(BIN)/python -m benchmarks.vstar_start data/shapes-vstar/train-sft.jsonl $@

test: install
	$(BIN)/python -m pytest

test-fast: install
	$(BIN)/python -m pytest -m "not slow"

only ?=

chaos: install  ## only="KILL rank": only the faults with this in their names
	$(if $(only),,PYTHONPATH=. $(BIN)/python tests/same_loop.py)
	PYTHONPATH=.:tests $(BIN)/python tests/chaos/suite.py --only "$(only)"

# mutmut and mkdocs have environments of their own, over the packages of .venv, which stays what the lock says.
.venv/mutants .venv/docs: .venv/%: requirements/%.txt | install
	$(PYTHON) -m venv $@
	$@/bin/pip install -q -r $<
	echo "import site; site.addsitedir('$(abspath .venv/lib/python3.11/site-packages)')" \
		> $@/lib/python3.11/site-packages/zz_packages.pth

serve ?=

docs: .venv/docs  ## into site/; serve=true: on http://127.0.0.1:8000, built anew with every change
	NO_MKDOCS_2_WARNING=1 $</bin/mkdocs $(if $(filter true,$(serve)),serve,build)

modules ?=

mutants: .venv/mutants  ## modules="a.py b.py": only these of [tool.mutants]
	nice $</bin/python -m benchmarks.mutants $(modules)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git grep -lzE '^#!.*[/ ](ba)?sh$$' | xargs -0 $(BIN)/shellcheck

clean:
	rm -rf .venv .mutants *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
