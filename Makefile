# Two commands do all the set-up on a fresh machine: make demo, make test.
PYTHON := .venv/bin/python

.PHONY: demo test setup lint types imports tests analyses paper dictionary

setup:
	@sh scripts/setup_environment.sh

demo: setup
	@.venv/bin/send-va demo

test: setup lint types imports tests

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: setup
	$(PYTHON) -m mypy

imports: setup
	.venv/bin/lint-imports

# Two halves side by side, since most tests use one core.
HALF := tests/identification tests/multilevel tests/publish tests/ranking tests/records tests/sensitivity tests/validation

tests: setup
	@$(PYTHON) -m pytest $(HALF) & first=$$!; \
	$(PYTHON) -m pytest $(addprefix --ignore=,$(HALF)); second=$$?; \
	wait $$first && exit $$second

analyses: setup
	$(PYTHON) analyses/run_all.py

paper: analyses
	$(PYTHON) paper/build.py

dictionary: setup
	$(PYTHON) -m send_va.records.dictionary data_dictionary.md
