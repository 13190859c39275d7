"""The stream of commands, and what one thread makes of it."""

from __future__ import annotations

import gzip
from datetime import date
from functools import cache

import pytest

from examples.capacity_service.bookings import (
    Booking,
    CapacityRule,
    Command,
    Outcome,
    PoolFigures,
    PoolsBy,
    command_stream,
    parse_bookings,
    peak_demand,
    recompute,
)
from examples.capacity_service.data.compact import compacted
from examples.capacity_service.replay import BOOKINGS_FILE

DAY_US = 86_400_000_000


@cache
def real_bookings() -> list[Booking]:
    with gzip.open(BOOKINGS_FILE, "rt") as lines:
        return parse_bookings(lines)


def booking(number: int, *, lead_days: int = 3, nights: int = 2, released: date | None = None) -> Booking:
    return Booking(number, "city", date(2016, 5, 10), lead_days, nights, released)


def test_the_shipped_data_is_the_whole_data_set() -> None:
    bookings = real_bookings()
    assert len(bookings) == 119_390
    assert sum(each.released is not None for each in bookings) == 43_017 + 1_207
    assert len({(each.hotel, each.arrival) for each in bookings}) == 1_586
    assert len(set(bookings)) == len(bookings), "rows that are equal in the data are still different bookings"


def test_the_real_stream_has_every_booking_once_and_in_the_order_of_time() -> None:
    stream = command_stream(real_bookings())
    assert stream == sorted(stream)
    assert sum(command.op == "reserve" for command in stream) == 119_390
    assert len({(command.op, command.booking) for command in stream}) == len(stream)
    assert sum(peak_demand(stream).values()) < 119_390


def test_a_booking_is_made_on_the_arrival_minus_its_lead_and_released_on_its_day() -> None:
    reserved, released = command_stream([booking(1, released=date(2016, 5, 8))])
    assert (reserved.op, reserved.pool) == ("reserve", "city-2016-05-10")
    assert released.op == "release"
    day = (date(2016, 5, 7) - date(1970, 1, 1)).days
    assert reserved.at_us // DAY_US == day
    assert released.at_us // DAY_US == day + 1


def test_a_reservation_comes_before_its_own_release_even_on_the_same_day() -> None:
    same_day = [booking(number, lead_days=0, released=date(2016, 5, 10)) for number in range(1, 500)]
    at_us: dict[int, list[str]] = {}
    for command in command_stream(same_day):
        at_us.setdefault(command.booking, []).append(command.op)
    assert all(ops == ["reserve", "release"] for ops in at_us.values())


def test_the_seed_decides_the_times_and_nothing_else_does() -> None:
    bookings = [booking(number) for number in range(1, 50)]
    assert command_stream(bookings, seed=1) == command_stream(list(reversed(bookings)), seed=1)
    assert command_stream(bookings, seed=1) != command_stream(bookings, seed=2)


def test_by_night_a_booking_takes_a_unit_of_each_of_its_nights() -> None:
    stream = command_stream([booking(1, nights=2)], by=PoolsBy.NIGHT)
    assert [command.pool for command in stream] == ["city-2016-05-10", "city-2016-05-11"]
    assert len({command.at_us for command in stream}) == 1


def test_a_limit_takes_the_bookings_that_were_made_first_with_their_releases() -> None:
    late, early = booking(1, lead_days=1), booking(2, lead_days=9, released=date(2016, 5, 9))
    assert [command.key for command in command_stream([late, early], limit=1)] == ["reserve-2", "release-2"]


def test_the_recomputation_rejects_what_does_not_fit_and_skips_the_release_of_a_rejected_one() -> None:
    stream = [
        Command(1, 1, "reserve", "p"),
        Command(2, 2, "reserve", "p"),
        Command(3, 2, "release", "p"),
        Command(4, 1, "release", "p"),
        Command(5, 3, "reserve", "p"),
    ]
    result = recompute(stream, {"p": 1})
    assert result.outcomes == [
        Outcome(True, 0),
        Outcome(False, 0),
        Outcome(None, 0),
        Outcome(True, 1),
        Outcome(True, 0),
    ]
    assert result.pools == {"p": PoolFigures(1, 1, 0)}


def test_peak_demand_is_what_is_held_at_the_same_time() -> None:
    stream = [Command(1, 1, "reserve", "p"), Command(2, 1, "release", "p"), Command(3, 2, "reserve", "p")]
    assert peak_demand(stream) == {"p": 1}


@pytest.mark.parametrize(("text", "capacity"), [("0.8", 8), ("0.01", 1), ("1.0", 10), ("3", 3), ("0", 0)])
def test_a_capacity_rule_is_a_fraction_or_a_number_of_units(text: str, capacity: int) -> None:
    assert CapacityRule.parse(text).capacity(10) == capacity


@pytest.mark.parametrize("text", ["", "much", "-1", "0.0", "nan", "inf"])
def test_anything_else_is_no_capacity_rule(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (float's own text is as good as ours)
        CapacityRule.parse(text)


def test_a_no_show_is_a_release_like_a_cancellation() -> None:
    row = {
        "hotel": "City Hotel",
        "arrival_date_year": "2016",
        "arrival_date_month": "May",
        "arrival_date_day_of_month": "10",
        "lead_time": "4",
        "stays_in_weekend_nights": "1",
        "stays_in_week_nights": "2",
        "is_canceled": "1",
        "reservation_status": "No-Show",
        "reservation_status_date": "2016-05-10",
    }
    assert list(compacted([row])) == [("city", "2016-05-10", "4", "3", "0")]
