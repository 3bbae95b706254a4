"""A merged model that is deleted alone, beside another; and what must be true whatever broke."""

from dataclasses import dataclass, field
from typing import Any

from service.context import Context
from service.domain.job_kinds import MERGE
from tests.faults.deletion import Deletion
from tests.faults.invariants import leftovers
from tests.support.merged_runs import publish


@dataclass
class MergedDeletion(Deletion):
    """The run stays, and another merge of it."""

    merge_id: str = ""
    kept_id: str = ""
    _run_before: list[Any] = field(default_factory=list)

    @property
    def named(self) -> str:
        return self.merge_id

    def prepare(self) -> None:
        self.run_id = self._trained()
        context = Context.make(self.environment.settings)
        client = self.environment.client
        cancelled = client.post(f"/v1/runs/{self.run_id}/merged/cancel")
        assert cancelled.status_code == 200, cancelled.text
        self.kept_id = publish(context, client, self.run_id, dtype="float32")
        self.merge_id = publish(context, client, self.run_id)
        context.database.dispose()
        self._files_before = self._files(self.run_id)
        self._run_before = self._rest()
        assert any(self._job in key for key, _ in self._files_before)

    def delete(self) -> int:
        query = {"merge_id": self.merge_id}
        answer = self.environment.client.delete(f"/v1/runs/{self.run_id}/merged", params=query)
        self.answers.append(answer.status_code)
        return answer.status_code

    # -- what must be so -----------------------------------------------------------------------

    def assert_untouched(self) -> None:
        assert self._seen() == [200, 200, 200]
        assert self._files(self.run_id) == self._files_before

    def assert_hidden(self) -> None:
        assert self._seen() == [404, 404, 404]
        listed = self.environment.client.get(f"/v1/runs/{self.run_id}/artifacts").json()["data"]
        assert not [one for one in listed if self.merge_id in one["path"]]
        assert self._get("/merged").json()["id"] == self.kept_id

    def check(self) -> None:
        """It is gone, and nothing else is."""
        self.assert_hidden()
        left = [row for row in self._rows(self.run_id) if row.startswith("artifact ")]
        assert not [row for row in left if self._job in row]
        assert self._rest() == self._run_before
        found = leftovers(self.environment)
        assert not found, "\n".join(found)

    @property
    def _job(self) -> str:
        return MERGE.job_id(self.merge_id)

    def _seen(self) -> list[int]:
        query = f"?merge_id={self.merge_id}"
        config = f"/artifacts/merged/{self.merge_id}/config.json"
        paths = (f"/merged{query}", f"/merged/download{query}", config)
        return [self._get(path).status_code for path in paths]

    def _rest(self) -> list[Any]:
        """All that there is of the run, but for this merge, of which events and job stay."""
        rows = [row for row in self._rows(self.run_id) if self._job not in row]
        # The run's own row counts the events, too; of it users see this.
        rows = [row for row in rows if not row.startswith("Run(")]
        files = [one for one in self._files(self.run_id) if self._job not in one[0]]
        return [self._get("").json(), rows, files]
