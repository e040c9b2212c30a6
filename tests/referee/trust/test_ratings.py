from pathlib import Path

import pytest

from evidence.errors import BadInput
from referee.trust.ratings import RatedClaim, read_ratings

HEAD = "sample,object,box,time,rater,relevance,localization\n"
GOOD = 's1,"man, left",0.1 0.2 0.5 0.9,12.5,ann,2,1\n'


@pytest.fixture
def table(tmp_path) -> Path:
    return tmp_path / "ratings.csv"


def test_ratings_of_one_claim_are_grouped(table):
    table.write_text(HEAD + GOOD + GOOD.replace("ann,2,1", "bob,0,0") + GOOD.replace("12.5", "13"))
    first, second = read_ratings(table)
    assert first == RatedClaim("s1", "man, left", (0.1, 0.2, 0.5, 0.9), 12.5, {"ann": (2, 1), "bob": (0, 0)})
    assert (second.time, second.ratings) == (13.0, {"ann": (2, 1)})


def test_columns_may_be_in_any_order_and_extra_ones_are_ignored(table):
    table.write_text("note,rater,localization,relevance,time,box,object,sample\nx,ann,1,2,3.0,0 0 1 1,cat,s9\n")
    assert read_ratings(table) == [RatedClaim("s9", "cat", (0, 0, 1, 1), 3.0, {"ann": (2, 1)})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'sample'"),
        (HEAD, "no ratings"),
        (HEAD.replace(",rater", ""), "no column 'rater'"),
        (HEAD + GOOD.replace("2,1", "3,1"), "line 2: relevance = '3': must be 0, 1 or 2"),
        (HEAD + GOOD.replace("2,1", "2,"), "line 2: localization = '': must be 0, 1 or 2"),
        (HEAD + GOOD.replace("0.9,", "0.1,"), "line 2: box = '0.1 0.2 0.5 0.1'"),
        (HEAD + GOOD.replace("0.9,", "90,"), "line 2: box = '0.1 0.2 0.5 90'"),
        (HEAD + GOOD.replace("0.9,", "wide,"), "line 2: box = 'wide': 'wide' is not a number"),
        (HEAD + GOOD.replace("12.5", "nan"), "line 2: time = 'nan'"),
        (HEAD + GOOD + GOOD.replace("2,1", "1,1"), "line 3: rater 'ann' has rated this claim before"),
        (HEAD + "s1,cat\n", "line 2: fewer fields than columns"),
    ],
)
def test_errors_name_their_line(table, text: str, message: str):
    table.write_text(text)
    with pytest.raises(BadInput) as refused:
        read_ratings(table)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_and_undecodable_files_are_refused(table):
    with pytest.raises(BadInput, match="cannot be read"):
        read_ratings(table)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        read_ratings(table)
