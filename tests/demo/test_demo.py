"""The main job: what it shows, and that an interrupted run loses nothing and does nothing twice."""

from __future__ import annotations

import hashlib
import os
import pty
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qtasks import QueueTasks, Task, TaskStatusEnum
from tests.support.commands import environment, run, running

FILES = 300
SEED = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files of several kinds, some in a folder of their own."""
    folder = tmp_path / "files"
    make_files(folder, 12)
    return folder


def make_files(folder: Path, count: int) -> None:
    (folder / "inner").mkdir(parents=True)
    for number in range(count):
        where = folder / "inner" if number % 3 == 0 else folder
        (where / f"file{number:03}.{'py' if number % 2 else 'txt'}").write_text("line\n" * number + "end")


async def stored(state: Path) -> list[Task]:
    """All tasks in the state file, read through the public API."""
    found: list[Task] = []
    async with QueueTasks("demo", f"sqlite:///{state / 'qtasks-demo.db'}") as app:
        cursor: str | None = None
        while True:
            tasks, cursor = await app.get_all(cursor)
            found += tasks
            if cursor is None:
                break
        queues = (await app.stats.inspect()).queues
    assert not any(sum(size.values()) for size in queues.values()), queues
    return found


async def check_complete(state: Path, folder: Path) -> None:
    """Every file of the folder has succeeded exactly once, with the right result; nothing else is there."""
    tasks = await stored(state)
    measured = [task for task in tasks if task.task_name == "measure"]
    expected = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert sorted(task.args[0] for task in measured) == expected
    for task in measured:
        content = (folder / task.args[0]).read_bytes()
        assert task.status is TaskStatusEnum.SUCCESS
        assert task.returning["sha256"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert task.returning["size"] == len(content)
    assert [task.attempt for task in measured if task.kwargs.get("fails_at_first")] == [1]
    assert [task.status for task in tasks if task.task_name == "summarise"] == [TaskStatusEnum.SUCCESS]


async def test_shows_results_a_trace_and_what_to_try_next(tmp_path: Path, folder: Path) -> None:
    done = run(tmp_path, "demo", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    for shown in (
        "12 files in", "12/12 ", "failed at first, and is run again", "12 files measured", "by kind",
        "demo-paths", "args[0]: 'file001.py' → '", "result['kind']: (absent) → 'Python'", "demo-watch  listened",
        "model.retry_in: None → ", "What to try next",
    ):  # fmt: skip
        assert shown in done.stdout, shown
    await check_complete(tmp_path, folder)


def test_the_default_folder_is_its_own_sources(tmp_path: Path) -> None:
    done = run(tmp_path, "demo", "--limit", "5")
    assert done.returncode == 0
    assert "5 files in" in done.stdout
    assert "only the first ones are taken (--limit)" in done.stdout


async def test_a_second_run_runs_nothing_again_and_shows_the_same(tmp_path: Path, folder: Path) -> None:
    run(tmp_path, "demo", str(folder))
    before = await stored(tmp_path)
    again = run(tmp_path, "demo", str(folder))
    assert again.returncode == 0
    assert "so nothing is run again" in again.stdout
    assert "args[0]: 'file001.py' → " in again.stdout
    assert await stored(tmp_path) == before


async def test_fresh_starts_over(tmp_path: Path, folder: Path) -> None:
    run(tmp_path, "demo", str(folder))
    again = run(tmp_path, "demo", str(folder), "--fresh")
    assert again.returncode == 0
    assert "12/12 " in again.stdout
    await check_complete(tmp_path, folder)


async def test_changed_new_and_deleted_files(tmp_path: Path, folder: Path) -> None:
    run(tmp_path, "demo", str(folder))
    (folder / "file001.py").write_text("changed")
    (folder / "file002.txt").unlink()
    (folder / "new.md").write_text("# new")
    again = run(tmp_path, "demo", str(folder))
    assert again.returncode == 0
    assert "2 files changed or went" in again.stdout
    assert "10 done, 0 waiting in the queue, 2 to be added" in again.stdout
    await check_complete(tmp_path, folder)


async def test_two_folders_share_a_state_file(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other"
    make_files(other, 3)
    assert run(tmp_path, "demo", str(folder)).returncode == 0
    assert run(tmp_path, "demo", str(other)).returncode == 0
    tasks = await stored(tmp_path)
    assert sorted(len([t for t in tasks if t.queue == queue]) for queue in {t.queue for t in tasks}) == [
        4,
        13,
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
async def test_an_unreadable_file_fails_by_name_and_is_tried_again(tmp_path: Path, folder: Path) -> None:
    secret = folder / "secret.txt"
    secret.write_text("secret")
    secret.chmod(0)
    done = run(tmp_path, "demo", str(folder))
    assert done.returncode == 1
    assert "1 files failed" in done.stdout
    assert "secret.txt: PermissionError" in done.stdout
    secret.chmod(0o600)
    assert run(tmp_path, "demo", str(folder)).returncode == 0
    await check_complete(tmp_path, folder)


def test_odd_entries_are_left_alone(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link.py").symlink_to(folder / "file001.py")
    (folder / ".hidden").write_text("hidden")
    (folder / "\x1b[31mred\n.txt").write_text("control characters in a name")
    Path(os.fsdecode(os.fsencode(folder) + b"/bad-\xff.txt")).write_text("not UTF-8")
    done = run(tmp_path, "demo", str(folder))
    assert done.returncode == 0
    assert "13 files in" in done.stdout
    assert "1 files are left out: their names are not valid text" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("name", "message"), [("absent", "there is no folder 'absent'"), ("file", "'file' is not a folder")]
)
def test_what_is_no_folder(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path, "demo", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "qtasks-demo.db").exists()


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(tmp_path, "demo", "empty")
    assert done.returncode == 0
    assert "no files to measure" in done.stdout


def test_a_broken_state_file_is_a_clear_error(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "qtasks-demo.db").write_bytes(b"this is no database" * 1000)
    done = run(tmp_path, "demo", str(folder))
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert run(tmp_path, "demo", str(folder), "--fresh").returncode == 0


def test_on_a_terminal_there_is_a_bar(tmp_path: Path, folder: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "qtasks", "demo", str(folder)], cwd=tmp_path, stdin=theirs, stdout=theirs,
        stderr=theirs, env=environment(TERM="xterm"),
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:
                break  # Linux says so when the other end is closed
            if not block:
                break
            shown += block
    os.close(ours)
    assert process.returncode == 0
    assert b"measuring" in shown
    assert b"12/12" in shown


# --- Interrupted ----------------------------------------------------------------------------------


def interrupted(state: Path, folder: Path, after: int, number: signal.Signals) -> int:
    """Runs the demo and sends a signal after that many lines of output; gives its exit code."""
    with running(state, "demo", str(folder)) as command:
        command.wait_for(lambda _: True, after)
        command.signal(number)
        code = command.wait()
        assert "Traceback" not in command.output, command.output
        assert code in (0, 130, -signal.SIGKILL), command.output
        if code == 130 and "What to try next" not in command.output:  # not just as it ended by itself
            assert "Nothing is lost: run the same command to go on" in command.output, command.output
    return code


async def interrupt_often(tmp_path: Path, count: int, number: signal.Signals, wanted: int, size: int) -> None:
    """Interrupts runs at seeded points, `count` times in all; whatever is finished is checked, and begun anew."""
    folder = tmp_path / "files"
    make_files(folder, size)
    chance = random.Random(SEED)
    hits = rounds = 0
    while hits < count:
        state = tmp_path / f"state{rounds}"
        state.mkdir()
        rounds += 1
        while hits < count and interrupted(state, folder, chance.randint(1, 25), number) == wanted:
            hits += 1
        assert run(state, "demo", str(folder)).returncode == 0
        await check_complete(state, folder)


async def test_interrupted_at_5_points_every_file_succeeds_exactly_once(tmp_path: Path) -> None:
    await interrupt_often(tmp_path, 5, signal.SIGINT, 130, FILES)


@pytest.mark.thorough
@pytest.mark.timeout(300)
async def test_interrupted_at_20_points_every_file_succeeds_exactly_once(tmp_path: Path) -> None:
    await interrupt_often(tmp_path, 20, signal.SIGINT, 130, FILES)


async def test_killed_at_3_points_every_file_succeeds_exactly_once(tmp_path: Path) -> None:
    await interrupt_often(tmp_path, 3, signal.SIGKILL, -signal.SIGKILL, FILES)


@pytest.mark.nightly
async def test_killed_at_20_points_every_file_succeeds_exactly_once(tmp_path: Path) -> None:
    await interrupt_often(tmp_path, 20, signal.SIGKILL, -signal.SIGKILL, 1000)


@pytest.mark.parametrize(
    "module",
    ["pydantic", "typer", "qtasks.app", "qtasks.cli.commands", "qtasks.demo.tasks", "qtasks.demo.run"],
)
def test_interrupted_while_it_starts_it_just_ends(tmp_path: Path, folder: Path, module: str) -> None:
    with running(tmp_path, "demo", str(folder), PYTHONPROFILEIMPORTTIME="1") as command:
        assert command.wait_for(lambda line: line.endswith(f" {module}"))
        command.signal(signal.SIGINT)
        assert command.wait() == 130
        assert "Traceback" not in command.output


async def test_sigterm_is_an_interruption_too(tmp_path: Path) -> None:
    await interrupt_often(tmp_path, 1, signal.SIGTERM, 130, FILES)


async def test_two_runs_at_once_share_the_work(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    make_files(folder, FILES)
    with running(tmp_path, "demo", str(folder)) as one, running(tmp_path, "demo", str(folder)) as other:
        assert (one.wait(), other.wait()) == (0, 0), one.output + other.output
    await check_complete(tmp_path, folder)
