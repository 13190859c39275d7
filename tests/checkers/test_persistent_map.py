"""Persistent maps: every version stays what it was, and versions with the same content are equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.testing.checkers.persistent_map import PersistentMap

Step = tuple[int, int, int | None]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4), st.none() | st.integers(0, 2)), max_size=30))
def test_versions_behave_as_dicts_do(steps: list[Step]) -> None:
    versions: list[PersistentMap[int, int]] = [PersistentMap({0: 1})]
    dicts: list[dict[int, int]] = [{0: 1}]
    for source, key, value in steps:
        version, plain = versions[source % len(versions)], dict(dicts[source % len(versions)])
        versions.append(version.without(key) if value is None else version.set(key, value))
        if value is None:
            plain.pop(key, None)
        else:
            plain[key] = value
        dicts.append(plain)
    # Each look at one version takes the dict away from the others.
    for version, plain in zip(versions, dicts, strict=True):
        assert dict(version) == plain
        assert len(version) == len(plain)
        assert version == PersistentMap(plain)
        assert hash(version) == hash(PersistentMap(plain))
    for version, plain in zip(versions, dicts, strict=True):
        assert [version == other for other in versions] == [plain == other for other in dicts]


def test_setting_what_is_there_is_the_same_version() -> None:
    version = PersistentMap({"a": 1})
    assert version.set("a", 1) is version
    assert version.without("b") is version
    assert version.get("b", 7) == 7
    with pytest.raises(KeyError):
        version["b"]
    assert version != {"a": 1}
    assert "a" in repr(version)
