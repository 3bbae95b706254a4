"""What may be asked of a merge."""

import pytest
from pydantic import ValidationError

from service.domain.job_kinds import MERGE
from service.domain.merge import MergeComparison, MergeRequest


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("1MB", 10**6),
        ("500 mb", 5 * 10**8),
        ("5GB", 5 * 10**9),
        ("1.5GB", 15 * 10**8),
        ("2GiB", 2**31),
        ("2048KiB", 2**21),
        ("1000GB", 10**12),
    ],
)
def test_sizes_are_those_of_transformers(written, count):
    assert MergeRequest(max_shard_size=written).max_shard_bytes == count


@pytest.mark.parametrize("written", ["", "5", "5 G", "-5GB", "1KB", "999KB", "1001GB", "five", 5])
def test_what_is_no_size_is_refused(written):
    with pytest.raises(ValidationError):
        MergeRequest(max_shard_size=written)


@pytest.mark.parametrize("changed", [None, 3])
def test_a_comparison_can_be_kept_as_numbers(changed):
    found = MergeComparison(
        rows=64, split="test", labels_changed=changed, max_difference=0.25, mean_difference=0.125
    )
    assert all(isinstance(value, float) for value in found.figures.values())
    assert MergeComparison.of_figures(found.figures, "test") == found


def test_a_merge_and_its_job_name_each_other():
    assert MERGE.job_id(MERGE.result_id("job_01abc")) == "job_01abc"
    assert MERGE.result_id("job_01abc") == "merge_01abc"
