"""What becomes of the grading process when its parent is ended or interrupted."""

import os
import pickle
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drpo.tasks import Example
from drpo.tasks.grading.process import GradingProcess
from support.hostile_tasks import HostileTask
from support.process_checks import ends

PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
sys.path.insert(0, sys.argv[1])
from support.hostile_tasks import HostileTask
from drpo.tasks import Example, Grader
print("imported", flush=True)
if __name__ == "__main__":
    with Grader(HostileTask(), time_limit=600) as grader:
        texts = [f"write_pid {sys.argv[2]}", *sys.argv[3:]]
        grader.grade([Example(prompt="", answer="")] * len(texts), texts)
        print("graded", flush=True)
        sys.stdin.read()
"""


def parent(tmp_path: Path, *texts: str) -> tuple[subprocess.Popen[str], int]:
    """A program that grades, and the number of its grading process."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    pid_file = tmp_path / "pid"
    command = [sys.executable, str(script), str(Path(__file__).parents[1]), str(pid_file), *texts]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    for _ in range(400):
        if pid_file.exists() and pid_file.read_text():
            return process, int(pid_file.read_text())
        time.sleep(0.05)
    raise AssertionError(f"the program did not start grading: {process.communicate()}")


def test_a_closed_pipe_ends_the_grading_process_while_a_reward_runs(tmp_path: Path) -> None:
    arrivals: queue.SimpleQueue[tuple[GradingProcess, bytes]] = queue.SimpleQueue()
    process = GradingProcess(pickle.dumps(HostileTask()), arrivals)
    process.check_ready(arrivals.get(timeout=20)[1])
    for text in (f"write_pid {tmp_path / 'pid'}", "sleep"):
        process.send(pickle.dumps((Example(prompt="", answer=""), text)))
    assert process.reply(arrivals.get(timeout=20)[1]) == {"reward": 1.0, "failure": None}
    process._stdin.close()
    assert ends(int((tmp_path / "pid").read_text()))
    process.kill()


@pytest.mark.parametrize("texts", [(), ("sleep",), ("backtrack",)])
def test_a_killed_parent_leaves_no_orphan(tmp_path: Path, texts: tuple[str, ...]) -> None:
    if texts == ("backtrack",) and sys.platform != "linux":
        pytest.skip("only Linux ends a process that is stuck in C code along with its parent")
    process, pid = parent(tmp_path, *texts)
    process.kill()
    process.communicate()
    assert ends(pid)


def test_ctrl_c_shows_no_traceback_of_the_grading_process(tmp_path: Path) -> None:
    process, pid = parent(tmp_path, "sleep")
    os.kill(pid, signal.SIGINT)  # as if the terminal had sent it to both
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert ends(pid)
    assert err.count("Traceback") == 1 and err.rstrip().endswith("KeyboardInterrupt")
    assert "grading_worker" not in err
    assert out.count("imported") == 1  # the main program is not run again in the grading process


def test_a_parent_that_ends_by_itself_leaves_nothing_behind(tmp_path: Path) -> None:
    process, pid = parent(tmp_path)
    out, err = process.communicate("", timeout=20)
    assert (process.returncode, err) == (0, "") and "graded" in out
    assert ends(pid)
