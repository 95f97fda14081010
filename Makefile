# The few commands a person types. Each installs what it needs first, and says so; run again, it is quick.

SHELL := /bin/bash
export RUSTUP_AUTO_INSTALL := 0

# LAPACK is a second route through the linear algebra, compared in tests where the library is there. One value for every
# call of cargo: another set of features would compile everything again.
FEATURES = $(shell pkg-config --exists openblas 2>/dev/null && echo --features lapack)
CARGO_FLAGS = --release --workspace $(FEATURES)
BIN = $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: help reproduce test doc notebooks notebook-outputs bench check-python check-cuda install system kernel

help:
	@echo "make reproduce         build, then run every experiment in its short form (runs/, figures/out/)"
	@echo "make test              format, lints, every test, the notebooks"
	@echo "make doc               the mathematics and the code as pages with typeset formulas (target/doc), no network needed"
	@echo "make notebooks         install Jupyter and the Rust kernel into .venv, and open the course in a browser"
	@echo "make notebook-outputs  run the notebooks and put their outputs into the files"
	@echo "make bench             the theory's workloads beside NumPy's, alternating on one thread (ROUNDS=7)"
	@echo "make bench BENCH=lm    a language model's training and sampling (TORCH_PYTHON= names a Python with torch to put beside)"
	@echo "make bench BENCH=memory  bytes that training takes, by what of a model is trained"
	@echo "make check-python      what we save, loaded in transformers and peft (PYTHON= names a Python that has them)"
	@echo "make check-cuda        build the program with CUDA, on any machine (docs/cuda.md; minutes the first time)"
	@echo "make install           put the program where cargo install puts programs"

reproduce: system
	@echo "== build"
	@cargo build $(CARGO_FLAGS)
	@echo "== rebel reproduce"
	@$(BIN)/rebel reproduce

test: system .venv/tests.done
	@CARGO_FLAGS="$(CARGO_FLAGS)" scripts/test.sh

# The same by hand: cargo doc. The formulas are the work of scripts/rustdoc.sh, which .cargo/config.toml names.
doc: system
	@cargo doc $(CARGO_FLAGS) --no-deps
	@echo "== $(or $(CARGO_TARGET_DIR),target)/doc/rebel_theory/index.html"

notebooks: system .venv/lab.done kernel
	@echo "== JupyterLab (Ctrl-C ends it)"
	@.venv/bin/jupyter lab notebooks

notebook-outputs: kernel
	@.venv/bin/python notebooks/check_notebook.py --write notebooks/*.ipynb

# BENCH names the workloads: theory, lm or memory. WRITE=1 also rewrites the committed numbers. For lm THREADS is both
# sides', and CHECK=1 fails where a target is missed.
BENCH = theory
ROUNDS = $(if $(filter lm,$(BENCH)),5,7)
THREADS = 2
TORCH_PYTHON =
PEER = $(if $(wildcard $(BENCH)/benches/requirements.txt),.venv/bench-$(BENCH).done)
BENCH_WRITE = $(if $(WRITE),--write figures/data/bench_$(BENCH).json)
bench: system $(PEER)
	@echo "== build"
ifeq ($(BENCH),lm)
	@cargo build $(CARGO_FLAGS)
	@echo "== lm$(if $(TORCH_PYTHON),, alone: TORCH_PYTHON=... puts PyTorch beside it)"
	@python3 scripts/bench_lm.py --rebel $(BIN)/rebel --threads $(THREADS) --rounds $(ROUNDS) \
	  $(if $(TORCH_PYTHON),--torch-python $(TORCH_PYTHON)) $(if $(CHECK),--check) $(BENCH_WRITE)
else
	@cargo bench $(subst --release,,$(CARGO_FLAGS)) --bench $(BENCH) --no-run
	@echo "== $(BENCH)$(if $(PEER), beside its peer)"
	@$(if $(PEER),.venv/bin/python,python3) scripts/bench.py $(BENCH) --cargo-flags="$(CARGO_FLAGS)" --rounds $(ROUNDS) \
	  $(BENCH_WRITE)
endif

# PYTHON is one with torch, transformers, peft and pyyaml; VECTORS a folder of models as in tests/vectors/hf.
PYTHON = python3
VECTORS = tests/vectors/hf
check-python: system
	@cargo build $(CARGO_FLAGS)
	@$(PYTHON) scripts/check_python.py --rebel $(BIN)/rebel --vectors $(VECTORS)

check-cuda:
	@scripts/cuda/build.sh build --release --locked --features cuda
	@echo "== $(or $(CARGO_TARGET_DIR),target)/cuda/build/release/rebel"

install:
	@cargo install --path . --profile dist --locked

system:
	@scripts/system.sh

kernel: .venv/tests.done
	@echo "== the notebooks' kernel"
	@.venv/bin/python notebooks/install_kernel.py

.venv/tests.done: notebooks/requirements.txt | system
	@echo "== .venv for the notebooks' tests"
	@python3 -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv/bench-%.done: %/benches/requirements.txt | system
	@echo "== .venv for the peer of $*"
	@python3 -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv/lab.done: notebooks/requirements-lab.txt .venv/tests.done
	@echo "== JupyterLab into .venv"
	@.venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@
