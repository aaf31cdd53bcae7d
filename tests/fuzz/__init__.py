"""Coverage-guided fuzzing of what peers send: ``nox -s fuzz -- --seconds 300``.

`targets` holds one function a target, `corpus` what was found to reach much code, and
what once failed. `tests/test_fuzz_corpus.py` runs all of it without a fuzzer.
"""
