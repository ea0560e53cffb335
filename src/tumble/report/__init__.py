"""A library's contents and a model's results as one web page that opens anywhere, offline."""

from tumble.report.data import ReportData, collect
from tumble.report.html import write_report

__all__ = ["ReportData", "collect", "write_report"]
