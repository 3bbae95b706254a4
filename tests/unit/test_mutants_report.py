from tools import mutants

LISTING = """\
    service.store.jobs.x_claim__mutmut_1: killed
    service.store.jobs.x_claim__mutmut_2: survived
    service.store.jobs.x_renew__mutmut_1: no tests
    service.queue.sweep.xǁSweeperǁsweep__mutmut_12: timeout
"""


def test_the_listing_is_counted_by_module():
    statuses = mutants.parse(LISTING)
    assert len(statuses) == 4
    assert mutants.summary(statuses)[2:] == [
        "| `service.queue.sweep` | 1 | 1 (100 %) | 0 | 0 |",
        "| `service.store.jobs` | 3 | 1 (33 %) | 1 | 1 |",
    ]


def test_other_lines_are_no_results():
    assert mutants.parse("To show a mutant:\n    mutmut show ID\n") == {}
