"""manage.py backfill: a file of history becomes hours, charts and calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from davy import files, progress
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from controlplane import registry
from controlplane.problems import Problem
from monitoring.backfill import backfill


class Command(BaseCommand):
    """Counts a parquet, csv or npz file into hours of one version. The same file again counts nothing."""

    help = __doc__ or ""

    def add_arguments(self, parser: CommandParser) -> None:
        """The file and whose it is."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--model", required=True)
        parser.add_argument("--version-name", required=True, help="of the model (--version is Django's)")
        parser.add_argument("--column", action="append", default=[], metavar="FIELD=COLUMN")
        parser.add_argument("--segment", action="append", default=[], metavar="COLUMN")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run it; CommandError says what is wrong with the file."""
        for pair in options["column"]:
            if "=" not in pair:
                raise CommandError(f"--column {pair!r} is not FIELD=COLUMN")
        named = dict(pair.split("=", 1) for pair in options["column"])
        try:
            version = registry.get_version(options["model"], options["version_name"])
            columns = files.columns_of(options["file"], named, options["segment"])
            if columns.unread:
                self.stdout.write(f"not read: {', '.join(columns.unread)}")
            found = backfill(version, options["file"], columns, timezone.now(), progress.bar)
        except (OSError, files.FileError, Problem) as err:
            raise CommandError(f"{options['file']} cannot be taken: {err}") from None
        self.stdout.write(
            f"{found['rows']} rows: {found['accepted']} hours accepted, {found['duplicate']} known already"
        )
