"""Comparison of Fairtune's label scoring with generation of the answer, on rows of a unified file.

    make bench-evaluation DATA=unified_test.json    the comparison
    python -m benchmarks.evaluation --help          all options

Every measurement is a new process, one after another. Both systems load the same weights by the
same function and use the same token ids.
"""
