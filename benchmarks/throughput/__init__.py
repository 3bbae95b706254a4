"""Training speed side by side: the original scripts' way, TRL's SFTTrainer, Fairtune.

    make bench                                  the side-by-side table
    python -m benchmarks.throughput --help      its options, --scaling and --overhead

Every measurement is a fresh process, one after another; rounds interleave the systems, so that a
machine that slows down slows all of them.
"""
