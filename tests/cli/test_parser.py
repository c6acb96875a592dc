"""Words that are mistyped, and options that are spelled alike in all commands."""

from __future__ import annotations

import re

import pytest

from mdmmt.cli import main, make_parser

PLACES = ("FILE", "FOLDER")  # `--out` names what the command writes


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("serach red", "'serach', expected demo, .*; did you mean search?"),
        ("--verison", "there is no option --verison; did you mean --version?"),
        ("extract a.mp4 --ouput b", "there is no option --ouput; did you mean --out?"),
        ("embed a.mp4 --weight=sample", "there is no option --weight; did you mean --weights?"),
        ("embed a.mp4 --out b --xyz", "there is no option --xyz\n"),
        ("embed a.mp4 --precision exakt", "'exakt', expected exact, .*; did you mean exact?"),
        ("index biuld a.mp4", "'biuld', expected build, .*; did you mean build?"),
        ("index build a.mp4 --metdata b", "there is no option --metdata; did you mean --metadata?"),
        ("download --only clip", "'clip', expected tokenizer, model, VIDEO, CLIP, tf_vggish\n"),
        ("completion fsh", "'fsh', expected bash, zsh, tcsh; did you mean zsh?"),
    ],
)
def test_parser_names_the_nearest_word(command: str, message: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(command.split())
    error = capsys.readouterr().err
    name = " ".join(word for word in command.split()[:2] if word in ("index", "build"))
    assert error.startswith(f"usage: mdmmt {name}".rstrip())
    assert re.search(message.replace("?", r"\?").replace(".*", "[^;]*"), error)


def test_parser_leaves_what_follows_two_dashes_alone() -> None:
    arguments = make_parser().parse_args(["extract", "--out=out", "--", "--a.mp4"])
    assert arguments.videos == ["--a.mp4"]
    arguments = make_parser().parse_args(["embed", "--out=a.npy", "--text=--a", "--text", "a -- b"])
    assert arguments.text == ["--a", "a -- b"]


def test_options_of_one_name_are_alike_in_all_commands() -> None:
    first = {}
    for name, command in make_parser().leaves():
        for action in command._actions:
            for option in action.option_strings:
                kind = action.metavar, action.nargs, action.choices, type(action)
                if option == "--out":
                    assert action.metavar in PLACES, name
                elif first.setdefault(option, kind) != kind:
                    assert kind == first[option], (name, option)
    assert len(first) > 20
