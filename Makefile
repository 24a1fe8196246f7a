# `make help` lists the targets. Everything is installed into .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MARKDOWN := $(wildcard *.md) docs .github
RUST := Cargo.toml Cargo.lock $(shell find src -name '*.rs')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: install
install: $(VENV)/.installed ## Install the package and its development tools into .venv

# The stamp is touched only after everything succeeded: a failed installation is done again.
$(VENV)/.installed: pyproject.toml $(RUST)
	@rm -f $@
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): the first time several gigabytes, and some minutes"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

.PHONY: demo
demo: install ## Run the whole experiment on the Python sources of this machine and write a report
	$(BIN)/sparsecode replicate

.PHONY: test
test: test-rust test-python ## Run every test, Rust and Python

.PHONY: test-rust
test-rust: ## Run the Rust tests
	cargo test --quiet

.PHONY: test-python
test-python: install ## Run the Python tests
	$(BIN)/pytest -n 2 --dist worksteal

.PHONY: sanitize
sanitize: ## Run the Rust tests under the address sanitizer (with a nightly toolchain)
	ASAN_OPTIONS=allocator_may_return_null=1 RUSTFLAGS=-Zsanitizer=address cargo +nightly test --quiet --lib --target-dir target/sanitize \
		--target $$(rustc -vV | sed -n 's/host: //p')

# The test that is skipped starts its own program, which only the emulator could.
.PHONY: test-arm
test-arm: ## Run the Rust tests on emulated 64-bit Arm (rustup target aarch64-unknown-linux-gnu, gcc-aarch64-linux-gnu, qemu-user)
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu' \
		cargo test --quiet --lib --release --target aarch64-unknown-linux-gnu -- --skip after_a_crash

.PHONY: soak
soak: install ## Try every promise of the store at full size and rewrite the table in docs/reliability.md
	$(BIN)/python tests/soak/soak_store.py --write

.PHONY: check
check: check-rust check-python check-docs ## Formatting, lints and types of everything; warnings are errors

.PHONY: check-rust
check-rust: ## The Rust part of check
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --features python -- -D warnings

.PHONY: check-python
check-python: install ## The Python part of check
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest sparsecode._core --mypy-config-file pyproject.toml \
		--allowlist tests/stubtest-allowed.txt --ignore-unused-allowlist

.PHONY: check-docs
check-docs: install ## The Markdown part of check
	$(BIN)/mdformat --check $(MARKDOWN)

.PHONY: format
format: install ## Format both languages and Markdown, and apply the lints' own fixes
	cargo fmt
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/mdformat $(MARKDOWN)

# Only the packages of the group are installed: the extension is not built again.
$(VENV)/.docs: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

.PHONY: docs
docs: $(VENV)/.docs ## Build the pages of docs/ and a reference of the package in target/docs
	$(BIN)/mkdocs build

.PHONY: bench
bench: install ## Run the benchmarks: each row beside its baseline, and all in benches/results
	$(BIN)/pytest --benchmark-only

.venv-peers/.tools: benches/peers/requirements.txt
	@rm -f $@
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet -r $<
	@touch $@

.PHONY: bench-peers
bench-peers: install .venv-peers/.tools ## Time training steps beside other libraries, on the activations of `make demo`
	PYTHONPATH=python:. .venv-peers/bin/python benches/peers/step_times.py sparsecode-run/activations/blocks.2.mlp.hook_post
	PYTHONPATH=python:. .venv-peers/bin/python benches/peers/step_times.py --csv benches/results/peers-kinds-steps.csv \
		--kind "topk k=16" --kind "batchtopk k=16" --kind "matryoshka k=16" --kind "jumprelu l0=16 penalty=quadratic" \
		--kind "gated l1=1.5" --kind "panneal l1=1.5" sparsecode-run/activations/blocks.2.mlp.hook_post
	PYTHONPATH=python:. .venv-peers/bin/python benches/peers/outcomes.py sparsecode-run/activations/blocks.2.mlp.hook_post
	PYTHONPATH=python:. .venv-peers/bin/python benches/peers/from_start.py sparsecode-run/activations/blocks.2.mlp.hook_post
	PYTHONPATH=python:. .venv-peers/bin/python benches/peers/from_start.py --start calibrated --csv benches/results/peers-from-calibrated-start.csv sparsecode-run/activations/blocks.2.mlp.hook_post
	PYTHONPATH=python:. .venv-peers/bin/python benches/peers/until.py sparsecode-run/activations/blocks.2.mlp.hook_post
	PYTHONPATH=python:. .venv-peers/bin/python benches/peers/reader_times.py sparsecode-run/activations/blocks.2.mlp.hook_post

INTEROP := saelens dictionary_learning sparsify
INTEROP_PYTHONS = $(foreach name,$(INTEROP),$(name)=.venv-interop/$(name)/bin/python)

# One environment for each library: what they need does not always go together.
.venv-interop/%/.tools: tests/peers/requirements-%.txt
	@rm -f $@
	@echo "Installing $* into .venv-interop/$*: the first time several gigabytes, and some minutes"
	$(PYTHON) -m venv .venv-interop/$*
	.venv-interop/$*/bin/python -m pip install --quiet --upgrade pip
	.venv-interop/$*/bin/python -m pip install --quiet -r $<
	@touch $@

.PHONY: interop
interop: install $(INTEROP:%=.venv-interop/%/.tools) ## Load dictionaries of other libraries here and ours there, and print the table
	$(BIN)/python tests/peers/table.py .venv-interop/out \
		--libraries $(INTEROP_PYTHONS)
	$(BIN)/python tests/peers/run_pages.py .venv-interop/pages --libraries $(INTEROP_PYTHONS)
	PYTHONPATH=python .venv-interop/saelens/bin/python tests/peers/training.py saelens
	PYTHONPATH=python .venv-interop/dictionary_learning/bin/python tests/peers/training.py dictionary_learning
	PYTHONPATH=python .venv-interop/saelens/bin/python tests/peers/saelens_evaluation.py
	PYTHONPATH=python .venv-interop/saelens/bin/python tests/peers/transformer_lens_hooks.py

.PHONY: clean
clean: ## Remove what the targets made, .venv included
	rm -rf $(VENV) .venv-peers .venv-interop target dist
