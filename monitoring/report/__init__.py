"""The report of a run: one HTML file that needs nothing but a browser, made from `runs/<id>/` alone.

    from monitoring.report import write_report
    write_report(Path("runs/edgeintent02-299128f0"), Path("report.html"))

`record` reads the folder, `learning`, `sampled` and `declared` turn it into numbers, `chart`, `bars` and `lanes` draw,
`sections_*` and `page` say it in HTML. Nothing here asks a service, and the page loads nothing from any network.
"""

from monitoring.report.page import render, write_report
from monitoring.report.record import RecordUnreadable

__all__ = ["RecordUnreadable", "render", "write_report"]
