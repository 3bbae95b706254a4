"""Comparison of training speed: the original scripts, TRL's SFTTrainer, Fairtune.

    make bench                                  the side-by-side table
    python -m benchmarks.throughput --help      all options, such as --scaling and --overhead

Every measurement is a new process, one after another; rounds interleave the systems, so that a
slower machine affects all of them.
"""
