"""Figures that tests note, printed behind them."""


def print_figures(reporter, section):
    """Print what tests have noted by `record_property(section, text)`, for `pytest_terminal_summary`."""
    reports = [report for reports in reporter.stats.values() for report in reports]
    noted = [
        (report.outcome, report.nodeid.rpartition("::")[2], text)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, text in report.user_properties
        if name == section
    ]
    if noted:
        reporter.section(section)
        for outcome, name, text in noted:
            reporter.write_line(f"{outcome}  {name}: {text}")
