"""Scoring labels as Fairtune does it against generating the answer, on rows of a unified file.

    make bench-evaluation DATA=unified_test.json    scoring against generating
    python -m benchmarks.evaluation --help          its options

Every measurement is a fresh process, one after another. Both systems load the same weights by the
same function and see the same token ids.
"""
