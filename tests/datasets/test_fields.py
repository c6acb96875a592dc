"""Fields of a record, and errors that name the place."""

from __future__ import annotations

import re

import pytest

from mdmmt import InputError
from mdmmt.datasets.fields import checked_seconds, checked_text, get_field, get_list, get_text

WHERE = "a.json, line 3"


def test_get_field_gives_the_fields_of_an_object():
    record = {"videos": [1], "caption": " a dog "}
    assert get_field(record, "caption", WHERE) == " a dog "
    assert get_list(record, "videos", WHERE) == [1]
    assert get_text(record, "caption", WHERE) == "a dog"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_field([], "video", WHERE), "is a list, expected an object"),
        (lambda: get_field({}, "video", WHERE), "has no video, but nothing"),
        (lambda: get_field({"a": 1, "b": 2}, "video", WHERE), "has no video, but a, b"),
        (lambda: get_list({"videos": "a"}, "videos", WHERE), "videos is a str, expected a list"),
        (lambda: get_text({"caption": " "}, "caption", WHERE), "caption is ' ', expected a text"),
        (lambda: checked_text(3, "caption", WHERE), "caption is 3, expected a text"),
        (lambda: checked_seconds("soon", "start", WHERE), "start is 'soon', expected seconds"),
        (lambda: checked_seconds("nan", "start", WHERE), "start is 'nan', expected seconds"),
        (lambda: checked_seconds(True, "start", WHERE), "start is True, expected seconds"),
        (lambda: checked_seconds(None, "start", WHERE), "start is None, expected seconds"),
    ],
)
def test_checked_fields_name_the_place_and_the_field(call, message):
    with pytest.raises(InputError, match=f"^{re.escape(f'{WHERE}: {message}')}$"):
        call()


@pytest.mark.parametrize(("value", "seconds"), [("1.5", 1.5), (2, 2.0), ("-3", -3.0), (" 4 ", 4.0)])
def test_checked_seconds_takes_numbers_and_their_texts(value, seconds):
    assert checked_seconds(value, "start", WHERE) == seconds
