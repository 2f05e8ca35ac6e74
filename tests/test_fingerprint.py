"""Identity is content: ids, seeds and fingerprints depend on nothing else."""

from pathlib import Path

from promptreel import fingerprint as prints
from promptreel.fingerprint import content_id, content_seed, fingerprint


def test_ids_depend_on_content_alone() -> None:
    assert content_id({"x": 1, "y": 2}) == content_id({"y": 2, "x": 1})
    assert content_id("ab", "c") != content_id("a", "bc")
    assert content_id(None) != content_id("")
    assert content_id(("a", 1)) == content_id(["a", 1])


def test_seeds_are_stable_and_in_range() -> None:
    assert content_seed("evolve", 0) == content_seed("evolve", 0)
    assert 0 <= content_seed("x") < 2**32


def test_models_on_disk_are_known_by_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.safetensors").write_bytes(b"weights")
    same = fingerprint("local", str(tmp_path / "a"))
    assert fingerprint("local", str(tmp_path / "b")) == same
    (tmp_path / "b" / "w.safetensors").write_bytes(b"weighty")
    assert fingerprint("local", str(tmp_path / "b")) != same
    (tmp_path / "a" / "more").write_bytes(b"")
    assert fingerprint("local", str(tmp_path / "a")) != same


def test_models_of_the_hub_are_known_by_name_and_options() -> None:
    known = {
        fingerprint("local", "org/model"),
        fingerprint("local", "org/model", revision="v2"),
        fingerprint("local", "org/model", "org/adapter"),
        fingerprint("endpoint", "org/model"),
    }
    assert len(known) == 4
    assert fingerprint("local", "org/model", revision=None) in known
    assert all(found.partition(":")[0] in ("local", "endpoint") for found in known)


def test_a_large_file_is_known_by_its_length_and_blocks_spread_over_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prints, "WHOLE", 1000)
    monkeypatch.setattr(prints, "BLOCKS", 4)
    monkeypatch.setattr(prints, "BLOCK", 100)
    found = set()
    for name, at in [("plain", None), ("first", 0), ("last", 1999), ("between", 150)]:
        data = bytearray(2000)
        if at is not None:
            data[at] = 1
        (tmp_path / name).write_bytes(data)
        found.add(fingerprint("local", str(tmp_path / name)))
    (tmp_path / "longer").write_bytes(bytes(2001))
    found.add(fingerprint("local", str(tmp_path / "longer")))
    assert len(found) == 4  # a change between two blocks is not seen
