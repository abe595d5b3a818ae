"""The page: one HTML file that needs no network, for a run, a comparison or a study."""

from thumbnet.report.page import write_comparison_report as write_comparison_report
from thumbnet.report.page import write_run_report as write_run_report
from thumbnet.report.page import write_study_report as write_study_report
