"""Many workers on a real Ray, on this machine: what they make is what one process makes, whoever of them is killed."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import lyra.synthesis.runs
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.models.loading import load
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.making import WORK
from lyra.synthesis.manifest import verify
from lyra.synthesis.on_ray import Crew
from lyra.synthesis.planning import Maker
from lyra.synthesis.production import Produced, produce
from lyra.synthesis.runs import produce_by_many
from lyra.synthesis.sources import find_inputs

pytest.importorskip("ray")
OPTIONS = SynthesisOptions(trajectories=("left", "up"), held_out=0.3, per_shard=2)


def paint(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((48, 40)).save(folder / f"photo{number}.png")
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log.jsonl"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """As a worker of Ray computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def workers_at_work(of: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(of).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("ray::Worker.make") or "ray::Worker.make" in " ".join(process.cmdline()):
                found.append(process)
    return found


def kill_one_at_work(of: int, after: float, seconds: float = 300) -> bool:
    """Kills a worker that is making a sample, some time after the first is seen at it."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if workers_at_work(of):
            time.sleep(after)
            victims = workers_at_work(of)
            if victims:
                random.choice(victims).send_signal(signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False


def test_workers_of_which_one_is_killed_make_what_one_process_makes(tmp_path: Path):
    sources = find_inputs(str(paint(tmp_path / "inputs", 4)))
    model = load("smoke")
    with one_thread():
        assert produce(Engine(model, "cpu"), sources, tmp_path / "alone", OPTIONS).complete
    crew = Crew("smoke", model.config.teacher, Maker.of(model), OPTIONS, tmp_path / "many")
    killed: list[bool] = []
    killer = threading.Thread(target=lambda: killed.append(kill_one_at_work(os.getpid(), 0.05)))
    killer.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = produce_by_many(crew, sources, workers=2)
    killer.join()
    assert killed == [True] and made == Produced(4, 4, 0, True)
    assert content_of(tmp_path / "many") == content_of(tmp_path / "alone")
    lines = [json.loads(line) for line in (tmp_path / "many/log.jsonl").read_text().splitlines()]
    assert len({line["id"] for line in lines}) == len(lines) == 4
    assert not [process for process in psutil.Process().children(recursive=True) if "raylet" in process.name()]


def command(inputs: Path, out: Path, *more: str) -> subprocess.Popen:
    chosen = ["--model", "smoke", "--trajectories", "left", "up", "--held-out", "0.3", "--per-shard", "2"]
    line = [sys.executable, "-m", "lyra.cli", "synthesize", str(inputs), "-o", str(out), *chosen, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Twenty inputs and what one process makes of them."""
    inputs = paint(tmp_path_factory.mktemp("inputs") / "inputs", 20)
    out = inputs.parent / "alone"
    run = command(inputs, out)
    _, said = run.communicate(timeout=500)
    assert run.returncode == 0, said
    return inputs, content_of(out)


@pytest.mark.slow
def test_workers_killed_at_twenty_random_times(tmp_path: Path, alone):
    inputs, wanted = alone
    kills, number, draw = 0, 0, random.Random(0)
    while kills < 20:
        out, number = tmp_path / f"set{number}", number + 1
        run = command(inputs, out, "--ray", "--workers", "2")
        while run.poll() is None and kills < 20:
            if workers_at_work(run.pid):
                kills += kill_one_at_work(run.pid, draw.uniform(0, 1.5), 1)
                time.sleep(draw.uniform(0, 3))
            time.sleep(0.02)
        _, said = run.communicate(timeout=500)
        assert run.returncode == 0, said
        assert content_of(out) == wanted
        print(f"{kills} kills after run {number}")


@pytest.mark.slow
def test_the_driver_killed_at_random_times(tmp_path: Path, alone):
    inputs, wanted = alone
    draw, out, kills = random.Random(1), tmp_path / "set", 0
    while kills < 4:
        run = command(inputs, out, "--ray", "--workers", "2")
        ends = time.monotonic() + 200
        while not workers_at_work(run.pid) and time.monotonic() < ends and run.poll() is None:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 5))
        family = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(draw.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
        run.communicate(timeout=100)
        if run.returncode == 0:
            break
        kills += 1
        _, alive = psutil.wait_procs(family, timeout=90)
        assert not [process for process in alive if process.is_running()], "Ray outlives its driver"
    last = command(inputs, out, "--ray", "--workers", "2")
    _, said = last.communicate(timeout=500)
    assert last.returncode == 0, said
    assert content_of(out) == wanted and kills >= 2
    verify(out)


@pytest.mark.slow
def test_a_disk_that_fills_under_workers(tmp_path: Path, alone):
    inputs, wanted = alone
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=600k tmpfs '{disk}' 2>/dev/null") != 0:
        pytest.skip("no permission to mount a small disk")
    try:
        run = command(inputs, disk / "set", "--ray", "--workers", "2")
        _, said = run.communicate(timeout=500)
        assert run.returncode == 2 and "no space left on the disk" in said.splitlines()[-1], said
        assert os.system(f"mount -o remount,size=64m '{disk}'") == 0
        again = command(inputs, disk / "set", "--ray", "--workers", "2")
        _, said = again.communicate(timeout=500)
        assert again.returncode == 0, said
        assert content_of(disk / "set") == wanted
    finally:
        os.system(f"umount '{disk}'")


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long jump(void) { return random() % 3000000000L - 1500000000L; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(id, t);
    if (id == CLOCK_REALTIME) t->tv_sec += jump();
    return r;
}
time_t time(time_t *t) { struct timespec n; clock_gettime(CLOCK_REALTIME, &n); if (t) *t = n.tv_sec; return n.tv_sec; }
"""


@pytest.mark.slow
def test_a_clock_that_jumps_at_every_look(tmp_path: Path, alone):
    """Every reading of the time of day is off by up to 47 years, another each time."""
    inputs, wanted = alone
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    (tmp_path / "shim.c").write_text(SHIM)
    built = subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.c", "-ldl"])
    assert built.returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(tmp_path / "shim.so"))
        jumped = subprocess.check_output(
            [sys.executable, "-c", "import time; print(time.time(), time.time())"], text=True
        )
        assert abs(float(jumped.split()[0]) - float(jumped.split()[1])) > 1000
        run = command(inputs, tmp_path / "set")
        _, said = run.communicate(timeout=500)
    assert run.returncode == 0, said
    assert content_of(tmp_path / "set") == wanted


@pytest.mark.slow
def test_two_commands_in_one_folder(tmp_path: Path, alone):
    inputs, wanted = alone
    first = command(inputs, tmp_path / "set")
    while not (tmp_path / "set/dataset.json").exists():
        time.sleep(0.05)
    # It waits, or on a slow machine it is done before the second has begun.
    first.send_signal(signal.SIGSTOP)
    second = command(inputs, tmp_path / "set", "--ray", "--workers", "1")
    _, said = second.communicate(timeout=300)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert f"is in use by another run (process {first.pid} on" in said.splitlines()[-1]
    _, said = first.communicate(timeout=300)
    assert first.returncode == 0 and content_of(tmp_path / "set") == wanted


def test_workers_that_do_not_start_end_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without Ray itself: a stand-in for it whose workers end as soon as they begin."""

    class GoneError(Exception):
        cause = LyraError("model 'x' differs on node7: put the same on all machines")

    class Stand:
        exceptions = type("exceptions", (), {"RayError": GoneError})

        def cluster_resources(self):
            return {"CPU": 2.0}

        def remote(self, _):
            return self

        def options(self, **_):
            return type("Maker", (), {"remote": lambda self, crew: Actor()})()

        def wait(self, busy, num_returns, timeout):
            return busy[:1], busy[1:]

        def get(self, reference):
            raise GoneError

        def kill(self, actor):
            pass

    class Actor:
        ready = type("method", (), {"remote": lambda self: object()})()

    @contextlib.contextmanager
    def stand_in(address, workers):
        yield Stand()

    monkeypatch.setattr(lyra.synthesis.runs, "connected", stand_in)
    model = load("smoke")
    crew = Crew("smoke", model.config.teacher, Maker.of(model), OPTIONS, tmp_path / "set")
    with pytest.raises(LyraError, match=r"workers do not start: model 'x' differs on node7"):
        produce_by_many(crew, find_inputs("worlds:200000-200001"))
    assert not list((tmp_path / "set" / WORK).glob("*"))
