# Two commands do everything on a fresh clone: make scene INPUT=photo.jpg, make test.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
INPUT ?= examples/room.png
# Of make scene: by default scenes/NAME, or scenes/NAME-2 and so on where that holds another input's scene.
OUT ?=
# By the environment, since a name may hold spaces and quotes.
export INPUT OUT
LYRA := .venv/bin/lyra
# pip reads PIP_FIND_LINKS itself; uv has a name of its own for it.
UV := UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" uv pip install -q --python .venv/bin/python
INSTALL = if command -v uv >/dev/null; then $(UV) $(1); else .venv/bin/pip install -q --disable-pip-version-check $(1); fi

RUN ?= runs/distill

.PHONY: scene distill tables test test-lowest test-slow check docs format clean

scene: .venv/scene.done
	out="$${OUT:-$$(.venv/bin/python -m lyra.generate.scene_names "$$INPUT")}" && \
	  $(LYRA) generate "$$INPUT" -o "$$out" --resume

# The method itself in minutes: synthesis, a student from nothing in three stages and two processes, held-out scenes.
distill: .venv/dev.done
	.venv/bin/python recipes/distill.py --run "$(RUN)"

# Every table of docs/results.md that a CPU can make, one after another; what is there of this code is not made again.
tables: .venv/dev.done
	OMP_NUM_THREADS=1 .venv/bin/python recipes/tables.py

# Two processes with a thread each, a file's tests in one of them; one file alone runs as it is: pytest tests/test_x.py.
test: .venv/dev.done
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --dist loadfile

# The lowest versions that pyproject.toml allows, and the tests of what they are used for. torch is the one of
# constraints.txt, since the lowest has no small build.
test-lowest: .venv/lowest.done
	PYTHONPATH=src .venv/lowest/bin/python -m pytest -q -p no:cacheprovider tests/test_lowest.py

test-slow: .venv/dev.done
	.venv/bin/python -m pytest -q -m slow

check: .venv/dev.done
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

# The reference of the public API, from its docstrings.
docs: .venv/dev.done
	.venv/bin/python recipes/reference.py build/reference

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

# What is not named there, torch above all, comes from .venv, which is quick and is how it is run.
.venv/lowest.done: .venv/dev.done
	.venv/bin/python -m venv .venv/lowest
	.venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	  > "$$(.venv/lowest/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/parent.pth"
	.venv/bin/python -m lyra.cli.bounds > .venv/lowest.txt
	.venv/lowest/bin/pip install -q --no-compile --disable-pip-version-check -r .venv/lowest.txt
	touch $@
