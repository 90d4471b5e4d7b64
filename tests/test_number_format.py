import pytest

from dgr_lightning import number_format


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0003, "3e-4"), (1e-5, "1e-5"), (0.00025, "2.5e-4"), (0.25, "0.25"), (12000, "12k"), (0, "0"), (50, "50")],
)
def test_numbers_read_as_people_write_them(value, text):
    assert number_format.short(value) == text


def test_nats_have_three_decimals_and_a_sign_where_there_are_none():
    assert number_format.nats(8.5) == "8.500"
    assert number_format.nats(None) == "–" and number_format.nats(None, "unknown") == "unknown"
