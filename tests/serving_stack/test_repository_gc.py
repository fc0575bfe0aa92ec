"""Versions go only when nobody needs them, whole and at once; what a process serves stays, however that process ends."""

import json
import os
import subprocess
import sys

import pytest

from serving_stack.repository import Origin, publish_files, verify, versions
from serving_stack.repository_gc import Entry, collect, judge, remove
from serving_stack.repository_use import hold, in_use
from trimtab.errors import Missing, TrimtabError


def add(store, version, model="intent", base=None, text=None):
    text = text or f"{model} {version}"
    return publish_files(store, model, version, {"weights.txt": text.encode()}, origin=Origin(base=base))


def entry(name, used=False, base=None):
    model, _, version = name.partition("/")
    return Entry(model, int(version), 1000, used, base)


def gone(tmp_path, entries, keep, needed=()):
    return [v.name for v in judge(tmp_path, entries, keep, frozenset(needed)) if v.free]


class TestJudge:
    def test_without_a_number_to_keep_nothing_goes(self, tmp_path):
        assert gone(tmp_path, [entry("intent/1"), entry("intent/2")], None) == []

    def test_the_newest_of_each_model_stay(self, tmp_path):
        entries = [entry(f"intent/{n}") for n in (1, 2, 10)] + [entry("other/1")]
        assert gone(tmp_path, entries, 2) == ["intent/1"]
        assert gone(tmp_path, entries, 1) == ["intent/2", "intent/1"]

    @pytest.mark.parametrize("used", [True, None])
    def test_what_is_served_or_may_be_stays_and_does_not_count_for_another(self, tmp_path, used):
        assert gone(tmp_path, [entry("intent/1", used), entry("intent/2"), entry("intent/3")], 1) == ["intent/2"]

    def test_what_is_said_to_be_needed_stays(self, tmp_path):
        assert gone(tmp_path, [entry("intent/1"), entry("intent/2"), entry("intent/3")], 1, ["intent/1"]) == ["intent/2"]

    def test_the_base_of_what_stays_stays_and_the_base_of_that(self, tmp_path):
        entries = [
            entry("base/1"),
            entry("base/2", base="base/1"),
            entry("base/3"),
            entry("adapter/1", base="base/3"),
            entry("adapter/2", base="base/2"),
            entry("base/9"),
        ]
        verdicts = {v.name: v for v in judge(tmp_path, entries, 1, frozenset())}
        assert {n for n, v in verdicts.items() if v.free} == {"base/3", "adapter/1"}
        assert verdicts["base/2"].why == "the base of adapter/2"

    def test_versions_based_on_each_other_end(self, tmp_path):
        assert gone(tmp_path, [entry("a/1", base="b/1"), entry("b/1", base="a/1")], 1) == []


class TestRemove:
    def test_it_is_gone_and_its_number_is_not_used_again(self, tmp_path):
        add(tmp_path, 1)
        add(tmp_path, 2)
        assert remove(tmp_path, "intent", 2, by="ada") > 0
        assert versions(tmp_path, "intent") == [1]
        with pytest.raises(TrimtabError, match="version 2 of intent was removed: choose another number"):
            add(tmp_path, 2, text="other")
        assert add(tmp_path, None, text="other").name == "3"
        mark = json.loads((tmp_path / "intent" / ".removed" / "2.json").read_text())
        assert mark["removed_by"] == "ada"
        assert mark["digest"].startswith("sha256:")
        assert {f.name for f in (tmp_path / "intent").iterdir()} == {"1", "3", ".removed"}

    def test_what_is_not_there_is_said(self, tmp_path):
        with pytest.raises(Missing, match=r"version 9 of intent is not in .*: it has none"):
            remove(tmp_path, "intent", 9)

    def test_what_is_served_is_refused_even_by_force(self, tmp_path):
        held = hold(add(tmp_path, 1))
        for force in (False, True):
            with pytest.raises(TrimtabError, match="is served now: take it out of traffic first"):
                remove(tmp_path, "intent", 1, force=force)
        verify(tmp_path, "intent", 1)
        os.close(held)
        remove(tmp_path, "intent", 1)

    def test_a_base_is_refused_unless_forced(self, tmp_path):
        add(tmp_path, 1, "base")
        add(tmp_path, 1, "adapter", base="base/1")
        with pytest.raises(TrimtabError, match="is the base of adapter/1: remove that first"):
            remove(tmp_path, "base", 1)
        remove(tmp_path, "base", 1, force=True)

    def test_a_broken_version_needs_force(self, tmp_path):
        (add(tmp_path, 1) / "manifest.json").unlink()
        assert in_use(tmp_path / "intent" / "1") is None
        with pytest.raises(TrimtabError, match="cannot be told whether"):
            remove(tmp_path, "intent", 1)
        remove(tmp_path, "intent", 1, force=True)
        assert versions(tmp_path, "intent") == []


class TestCollect:
    def test_it_frees_old_versions_and_says_what_and_why(self, tmp_path):
        for version in (1, 2, 3):
            add(tmp_path, version)
        verdicts = collect(tmp_path, 1, dry_run=False)
        assert [(v.name, v.free, v.why) for v in verdicts] == [
            ("intent/3", False, "among the newest 1"),
            ("intent/2", True, "old"),
            ("intent/1", True, "old"),
        ]
        assert versions(tmp_path, "intent") == [3]

    def test_a_dry_run_says_the_same_and_touches_nothing(self, tmp_path):
        for version in (1, 2, 3):
            add(tmp_path, version)
        (tmp_path / "intent" / ".4-abc").mkdir()
        before = sorted(tmp_path.rglob("*"))
        said = [(v.name, v.free, v.bytes) for v in collect(tmp_path, 1, dry_run=True)]
        assert sorted(tmp_path.rglob("*")) == before
        assert [(v.name, v.free, v.bytes) for v in collect(tmp_path, 1, dry_run=False)] == said

    def test_litter_goes_and_nothing_else_does(self, tmp_path):
        add(tmp_path, 1)
        for name in (".1-x", ".next-y", ".gone-1-z", ".removed", ".notes", "readme"):
            (tmp_path / "intent" / name).mkdir()
        verdicts = collect(tmp_path, None, dry_run=False)
        assert [v.name for v in verdicts if v.free] == ["intent/.1-x", "intent/.gone-1-z", "intent/.next-y"]
        assert {f.name for f in (tmp_path / "intent").iterdir()} == {"1", ".removed", ".notes", "readme"}

    def test_a_base_goes_after_what_is_based_on_it(self, tmp_path):
        add(tmp_path, 1, "abase")
        add(tmp_path, 2, "abase")
        add(tmp_path, 1, "later", base="abase/1")
        add(tmp_path, 2, "later")
        assert {v.name for v in collect(tmp_path, 1, dry_run=False) if v.free} == {"abase/1", "later/1"}
        assert versions(tmp_path, "abase") == versions(tmp_path, "later") == [2]

    def test_an_empty_store_has_nothing_to_free(self, tmp_path):
        assert collect(tmp_path / "nowhere", 1, dry_run=False) == []


@pytest.mark.integration
def test_a_process_holds_its_version_through_exec_until_it_is_killed(tmp_path):
    add(tmp_path, 1)
    add(tmp_path, 2)
    code = "import os, sys, pathlib\nfrom serving_stack.repository_use import hold\nhold(pathlib.Path(sys.argv[1]))\n"
    code += "print('held', flush=True)\nos.execv('/bin/sleep', ['sleep', '600'])"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "intent" / "1")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        verdicts = {v.name: v for v in collect(tmp_path, 1, dry_run=False)}
        assert verdicts["intent/1"].why == "served now"
        with pytest.raises(TrimtabError, match="served now"):
            remove(tmp_path, "intent", 1)
        assert versions(tmp_path, "intent") == [1, 2]
    finally:
        process.kill()
        process.wait()
    collect(tmp_path, 1, dry_run=False)
    assert versions(tmp_path, "intent") == [2]
