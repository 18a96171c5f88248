# Two commands do everything on a fresh clone: make scene INPUT=photo.jpg, make test.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
INPUT ?= examples/room.png
OUT ?= scenes/$(basename $(notdir $(INPUT)))
LYRA := .venv/bin/lyra
# pip reads PIP_FIND_LINKS itself; uv has a name of its own for it.
UV := UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" uv pip install -q --python .venv/bin/python
INSTALL = if command -v uv >/dev/null; then $(UV) $(1); else .venv/bin/pip install -q --disable-pip-version-check $(1); fi

.PHONY: scene test test-slow check format clean

scene: .venv/scene.done
	$(LYRA) generate "$(INPUT)" -o "$(OUT)" --resume

test: .venv/dev.done
	.venv/bin/python -m pytest -q

test-slow: .venv/dev.done
	.venv/bin/python -m pytest -q -m slow

check: .venv/dev.done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

format: .venv/dev.done
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/scene.done: .venv/bin/python pyproject.toml constraints.txt
	$(call INSTALL,-c constraints.txt -e ".[all]")
	touch $@

.venv/dev.done: .venv/scene.done
	$(call INSTALL,-c constraints.txt -e ".[dev]")
	touch $@
