"""The client.

Generated from fairtune/_async by tools/sync_client.py; do not edit.
"""

from typing import Any, Self

import httpx

from fairtune import _protocol as protocol
from fairtune._sync.resources import (
    Adapters,
    Datasets,
    Keys,
    Promotions,
    Runs,
)
from fairtune._sync.transport import Transport
from fairtune._version import __version__
from fairtune.models import Comparison, Health, ModelView, PresetView, Readiness, Template


class Client:
    """A connection to a Fairtune server.

    `url` is its address, by default FAIRTUNE_URL or http://127.0.0.1:8000; `key` an API key, by
    default FAIRTUNE_KEY. `http` replaces the HTTP client, for proxies, certificates or tests.
    """

    adapters: Adapters
    datasets: Datasets
    runs: Runs
    promotions: Promotions
    keys: Keys

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        http: httpx.Client | None = None,
    ) -> None:
        self.url = protocol.server_url(url)
        # A proxy of the environment cannot reach this machine's loopback interface.
        trust_env = not protocol.is_loopback(self.url)
        self._http = http or httpx.Client(timeout=protocol.TIMEOUT, trust_env=trust_env)
        self._http.base_url = httpx.URL(self.url)
        self._http.headers.update(protocol.headers(key, __version__))
        self._transport = Transport(self._http, self.url)
        self.adapters = Adapters(self._transport)
        self.datasets = Datasets(self._transport)
        self.runs = Runs(self._transport)
        self.promotions = Promotions(self._transport)
        self.keys = Keys(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> Health:
        """Return the server's version; answers whatever its dependencies do."""
        return Health.from_json(self._transport.get("/healthz"))

    def readiness(self) -> Readiness:
        """Return the state of each dependency of the server."""
        try:
            response = self._http.get("/readyz")
        except httpx.TransportError as error:
            raise self._transport.unreachable(error) from error
        return Readiness.from_json(response.json())

    def presets(self) -> list[PresetView]:
        """Return the presets of specifications."""
        return [PresetView.from_json(entry) for entry in self._list("/v1/presets")]

    def templates(self) -> list[Template]:
        """Return the prompt templates."""
        return [Template.from_json(entry) for entry in self._list("/v1/templates")]

    def models(self) -> list[ModelView]:
        """Return the base models that the server has."""
        return [ModelView.from_json(entry) for entry in self._list("/v1/models")]

    def _list(self, path: str) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = self._transport.get(path)
        return content

    def compare(self, *runs: Any, split: str | None = None) -> Comparison:
        """Compare runs, checkpoints (`run_id@step`) or evaluations on the same rows."""
        content = self._transport.get("/v1/compare", runs=_entries(runs), split=split)
        return Comparison.from_json(content)

    def compare_as(self, format: str, *runs: Any, split: str | None = None) -> str:
        """Return the comparison as text: json or html."""
        return self._transport.text("/v1/compare", runs=_entries(runs), split=split, format=format)


def _entries(runs: tuple[Any, ...]) -> str:
    return ",".join(getattr(run, "id", run) for run in runs)
