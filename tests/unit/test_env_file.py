"""The file .env: values are read literally, and lines that cannot be read are faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from heroimg.config import ConfigError
from heroimg.env_file import read_env_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_env_file(path)
    return caught.value.faults


def test_no_file_is_no_settings(path: Path) -> None:
    assert read_env_file(path) == {}


def test_values_are_read_literally(path: Path) -> None:
    path.write_text(
        '# Prices\nexport A=1\n\nB="two words" # comment\nC=\'$HOME ${A} $2\'\nD=$HOME ${A} $2\nE=\nF="é\\n"\n'
    )
    assert read_env_file(path) == {
        "A": "1", "B": "two words", "C": "$HOME ${A} $2", "D": "$HOME ${A} $2", "E": "", "F": "é\n",
    }  # fmt: skip


def test_windows_line_ends_and_its_mark_are_passed_over(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfA=1\r\nB=2\r\n")
    assert read_env_file(path) == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("HEROIMG_CURRENCY=eur\n".encode("utf-16"), 1),
        ("HEROIMG_CURRENCY=eur\n".encode("utf-16-le"), 1),
        ("A=1\nHEROIMG_PRODUCT_NAME=Fühlbrett\n".encode("latin-1"), 2),
    ],
    ids=["UTF-16", "UTF-16 without its mark", "Latin-1"],
)
def test_another_encoding_is_a_fault_with_the_files_name_and_line(path: Path, content: bytes, line: int) -> None:
    path.write_bytes(content)
    assert faults(path) == [f"{path}, line {line}, is not in UTF-8: save the file in that encoding"]


@pytest.mark.parametrize(
    "bad",
    [
        'HEROIMG_PRODUCT_NAME="Feelings', "HEROIMG_PRODUCT_NAME='Feelings", "HEROIMG_CURRENCY: eur",
        "HEROIMG_CURRENCY eur", "HEROIMG_CURRENCY", '=eur', 'HEROIMG_PRODUCT_NAME="a" b', "STRIPE_SECRET_KEY: sk_shh",
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_a_fault_and_is_not_shown(path: Path, bad: str) -> None:
    path.write_text(f"A=1\n\n\n{bad}\nB=2\n")
    assert faults(path) == [f"{path}, line 4, is not NAME=value: an equals sign or a quotation mark may be missing"]


def test_every_bad_line_is_reported(path: Path) -> None:
    path.write_text("A: 1\nB=2\nC: 3\n")
    assert [fault.partition(", is not")[0] for fault in faults(path)] == [f"{path}, line 1", f"{path}, line 3"]


def test_a_folder_of_that_name_is_a_fault(path: Path) -> None:
    path.mkdir()
    assert faults(path) == [f"{path} cannot be read (Is a directory)"]
