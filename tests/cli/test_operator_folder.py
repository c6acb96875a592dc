"""`mdmmt hub-folder` and `install-operator`."""

from __future__ import annotations

from fresh import FOLDER

from mdmmt.cli import main


def test_hub_folder_says_where_it_has_written(tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert main(["hub-folder", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"operator folder written to {out}\n"
    assert (out / "mdmmt" / "operator.py").is_file()


def test_install_operator_says_where_towhee_finds_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOWHEE_HOME", str(tmp_path / "towhee"))
    assert main(["install-operator"]) == 0
    folder = tmp_path / "towhee" / FOLDER
    assert capsys.readouterr().out == f"operator installed in {folder}\n"
    assert (folder / "__init__.py").is_file()
