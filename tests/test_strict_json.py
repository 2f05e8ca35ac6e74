"""JSON from outside is read strictly: one kind of error for everything that is none."""

import pytest

from promptreel.fingerprint import content_id
from promptreel.strict_json import load_json


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[" * 100_000, "9" * 5000, '{"a": NaN}', "[-Infinity]", '{"a": 1, "a": 1}',
        '[{"b": {"a": 1, "a": 2}}]', '{"\\ud800": 1, "\\ud801": 2}',
    ],
    ids=range(9),
)  # fmt: skip
def test_a_text_that_is_not_strictly_json_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_json(text)


def test_json_that_is_read_can_be_stored() -> None:
    """Escapes may name halves of surrogate pairs, of which no text can be made."""
    found = load_json(r'{"whole \ud83d\udc31": ["half \ud800", "\udc31\ud83d", "\\ud800"], "n": 1.5}')
    assert found == {"whole 🐱": ["half \ufffd", "\ufffd\ufffd", "\\ud800"], "n": 1.5}
    assert content_id(found)
