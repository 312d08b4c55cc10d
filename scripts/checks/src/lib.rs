//! Checks on the project itself. All of them are tests, see `tests/checks`; the library is empty.
