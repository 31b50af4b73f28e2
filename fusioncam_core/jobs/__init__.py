"""Explaining whole data sets: rows in a folder of Parquet files, with which an interrupted run goes on."""

from fusioncam_core.jobs.run import Estimate, JobResult

__all__ = ["Estimate", "JobResult"]
