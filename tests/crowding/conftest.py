"""Prints the figures that the tests of crowding note, behind the tests."""

import pytest


@pytest.fixture
def figure(record_property):
    """`figure(text)`: a line for the table that is printed in the end."""

    def note(text):
        record_property("crowding", text)

    return note


def pytest_terminal_summary(terminalreporter):
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    noted = [
        (report.nodeid.rpartition("::")[2], report.outcome, text)
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, text in report.user_properties
        if name == "crowding"
    ]
    if noted:
        terminalreporter.section("crowding")
        for name, outcome, text in noted:
            terminalreporter.write_line(f"{outcome}  {name}: {text}")
