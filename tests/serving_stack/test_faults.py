"""What a fault file may say, and what the model does with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from serving_stack.fault import Fault, set_fault
from serving_stack.intent_model import faults as faults_module
from serving_stack.intent_model.faults import LOOK_EVERY_SECONDS, FaultFile, Faults


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "slow"},
        {"kind": "slow", "seconds": -1.0},
        {"kind": "slow", "seconds": float("nan")},
        {"kind": "slow", "seconds": 0.2, "share": 0.5},
        {"kind": "slow", "seconds": "200ms"},
        {"kind": "failing", "share": 30.0},
        {"kind": "failing", "share": 0.0},
        {"kind": "wrong"},
        {"kind": "leaking", "bytes_per_request": 0},
        {"kind": "crashing", "after_requests": -1},
        {"kind": "gremlins"},
        {"kind": "slow", "seconds": 0.2, "typo": 1},
        {},
    ],
)
def test_a_wrong_fault_is_refused(fields):
    with pytest.raises(ValidationError):
        Fault(**fields)


def test_words_say_what_is_missing():
    with pytest.raises(ValidationError, match="a fault of kind slow needs `seconds`"):
        Fault(kind="slow")
    with pytest.raises(ValidationError, match="a fault of kind wrong takes no `seconds`"):
        Fault(kind="wrong", share=0.3, seconds=1.0)


def test_a_fault_file_holds_only_what_was_said():
    assert json.loads(Fault(kind="slow", seconds=0.2).json_text()) == {"kind": "slow", "seconds": 0.2}


def test_a_fault_comes_and_goes(tmp_path):
    file = tmp_path / "fault"
    watched = FaultFile(file)
    assert watched.current(0.0) is None
    set_fault(file, Fault(kind="wrong", share=0.3))
    assert watched.current(0.1) is None, "not looked at more often than promised"
    assert watched.current(LOOK_EVERY_SECONDS) == {"kind": "wrong", "share": 0.3}
    set_fault(file, None)
    assert watched.current(2 * LOOK_EVERY_SECONDS) is None
    set_fault(file, None)


@pytest.mark.parametrize("content", ["", "{", "[]", '"slow"', "\x00\x00", "null"])
def test_an_unreadable_fault_file_is_no_fault(tmp_path, content):
    file = tmp_path / "fault"
    file.write_text(content)
    assert FaultFile(file).current(0.0) is None


def test_no_files_no_faults(tmp_path):
    faults = Faults(tmp_path, None)
    faults.before_batch(16)
    assert not faults.fails()
    assert faults.wrong(3, 77) is None


def version_with(tmp_path, fault):
    (tmp_path / "fault.json").write_text(fault.json_text())
    faults = Faults(tmp_path, None, seed=1)
    return faults


def test_wrong_answers_are_other_classes_and_as_many_as_asked(tmp_path):
    faults = version_with(tmp_path, Fault(kind="wrong", share=0.3))
    faults.before_batch(1)
    answers = [faults.wrong(76, 77) for _ in range(2000)]
    wrong = [a for a in answers if a is not None]
    assert 500 < len(wrong) < 700
    assert all(0 <= a < 76 for a in wrong)
    assert not faults.fails()


def test_failing_fails_about_the_share(tmp_path):
    faults = version_with(tmp_path, Fault(kind="failing", share=0.5))
    faults.before_batch(1)
    assert 900 < sum(faults.fails() for _ in range(2000)) < 1100


def test_version_and_replica_faults_add_up(tmp_path):
    faults_file = tmp_path / "replica"
    set_fault(faults_file, Fault(kind="failing", share=1.0))
    (tmp_path / "fault.json").write_text(Fault(kind="wrong", share=1.0).json_text())
    faults = Faults(tmp_path, str(faults_file))
    faults.before_batch(1)
    assert faults.fails()
    assert faults.wrong(0, 2) == 1


LEAK = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from faults import Faults
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
faults, before = Faults(Path(sys.argv[2]), None), resident()
faults.before_batch(4)
print(resident() - before)
for _ in range(20):
    faults.before_batch(4)
print(resident() - before)
"""


def test_a_leak_is_resident_and_stops_at_its_limit(tmp_path):
    fault = Fault(kind="leaking", bytes_per_request=8_000_000, limit_bytes=40_000_000)
    (tmp_path / "fault.json").write_text(fault.json_text())
    # In a process of its own: here, memory that earlier tests gave back would be taken again.
    command = [sys.executable, "-c", LEAK, str(Path(faults_module.__file__).parent), str(tmp_path)]
    after_four, in_the_end = map(int, subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
    assert after_four > 30_000_000
    assert 38_000_000 < in_the_end < 50_000_000
