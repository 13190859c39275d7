"""Makes ``hotel_bookings.csv.gz`` from the published data set: the columns that a replay needs, in the same order."""

from __future__ import annotations

import calendar
import csv
import gzip
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

import click

__all__ = ["COLUMNS", "compact", "compacted"]

COLUMNS = ("hotel", "arrival", "lead_days", "nights", "released")

HOTELS = {"Resort Hotel": "resort", "City Hotel": "city"}
MONTHS = {name: number for number, name in enumerate(calendar.month_name) if name}


def compacted(rows: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, ...]]:
    """The rows of the original file in the short form."""
    for row in rows:
        arrival = date(
            int(row["arrival_date_year"]), MONTHS[row["arrival_date_month"]], int(row["arrival_date_day_of_month"])
        )
        released = ""
        if row["is_canceled"] == "1":
            released = str((arrival - date.fromisoformat(row["reservation_status_date"])) // timedelta(days=1))
        nights = int(row["stays_in_weekend_nights"]) + int(row["stays_in_week_nights"])
        yield (HOTELS[row["hotel"]], arrival.isoformat(), row["lead_time"], str(nights), released)


@click.command()
@click.argument("original", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compact(original: Path) -> None:
    """Reads the published CSV file (plain or gzipped) and writes the compact copy beside this script."""
    content = original.read_bytes()
    rows = csv.DictReader(io.StringIO((gzip.decompress(content) if original.suffix == ".gz" else content).decode()))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(compacted(rows))
    target = Path(__file__).with_name("hotel_bookings.csv.gz")
    # A fixed time stamp: the same input gives the same bytes.
    target.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))
    click.echo(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    compact()
