//! A dictionary, its language model and held-out text to a report.
