"""UUIDs of our own making are those of the standard library."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from uuid import RFC_4122, UUID, SafeUUID, uuid4

from qtasks.ids import new_uuid, uuid_of


def test_bytes_give_the_same_uuid() -> None:
    for known in (UUID(int=0), UUID(int=2**128 - 1), uuid4()):
        made = uuid_of(known.bytes)
        assert (made, hash(made), str(made), made.bytes) == (known, hash(known), str(known), known.bytes)
        assert made.is_safe is SafeUUID.unknown
        assert pickle.loads(pickle.dumps(made)) == copy.copy(made) == known


def test_new_ones_are_random_uuids_of_version_4() -> None:
    made = [new_uuid() for _ in range(2000)]
    assert len(set(made)) == len(made)
    assert {uuid.version for uuid in made} == {4}
    assert {uuid.variant for uuid in made} == {RFC_4122}
    # Every bit that is not fixed is drawn.
    ones, zeros = 0, 2**128 - 1
    for uuid in made:
        ones |= uuid.int
        zeros &= uuid.int
    free = ones & ~zeros
    assert free.bit_count() == 122


FORK = """
import os
from qtasks.ids import new_uuid
new_uuid()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, b"".join(new_uuid().bytes for _ in range(10)))
    os._exit(0)
os.wait()
theirs = os.read(read, 160)
theirs = {theirs[i:i + 16] for i in range(0, len(theirs), 16)}
ours = {new_uuid().bytes for _ in range(300)}
print(len(theirs), len(ours), len(theirs & ours))
"""


def test_a_child_process_draws_its_own() -> None:
    # In a process of its own: a fork of one with threads, as a test run has them, is not safe.
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["10", "300", "0"]
