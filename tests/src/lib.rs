//! Golden, conformance, end-to-end and tidy tests.
