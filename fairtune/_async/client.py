"""The client."""

from typing import Any, Self

import httpx

from fairtune import _protocol as protocol
from fairtune._async.resources import (
    AsyncAdapters,
    AsyncDatasets,
    AsyncKeys,
    AsyncPromotions,
    AsyncRuns,
)
from fairtune._async.transport import AsyncTransport
from fairtune._version import __version__
from fairtune.models import Comparison, Health, ModelView, PresetView, Readiness, Template


class AsyncClient:
    """A connection to a Fairtune server.

    `url` is its address, by default FAIRTUNE_URL or http://127.0.0.1:8000; `key` an API key, by
    default FAIRTUNE_KEY. `http` replaces the HTTP client, for proxies, certificates or tests.
    """

    adapters: AsyncAdapters
    datasets: AsyncDatasets
    runs: AsyncRuns
    promotions: AsyncPromotions
    keys: AsyncKeys

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self.url = protocol.server_url(url)
        # A proxy of the environment cannot reach this machine's loopback interface.
        trust_env = not protocol.is_loopback(self.url)
        self._http = http or httpx.AsyncClient(timeout=protocol.TIMEOUT, trust_env=trust_env)
        self._http.base_url = httpx.URL(self.url)
        self._http.headers.update(protocol.headers(key, __version__))
        self._transport = AsyncTransport(self._http, self.url)
        self.adapters = AsyncAdapters(self._transport)
        self.datasets = AsyncDatasets(self._transport)
        self.runs = AsyncRuns(self._transport)
        self.promotions = AsyncPromotions(self._transport)
        self.keys = AsyncKeys(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def health(self) -> Health:
        """Return the server's version; answers whatever its dependencies do."""
        return Health.from_json(await self._transport.get("/healthz"))

    async def readiness(self) -> Readiness:
        """Return the state of each dependency of the server."""
        try:
            response = await self._http.get("/readyz")
        except httpx.TransportError as error:
            raise self._transport.unreachable(error) from error
        return Readiness.from_json(response.json())

    async def presets(self) -> list[PresetView]:
        """Return the presets of specifications."""
        return [PresetView.from_json(entry) for entry in await self._list("/v1/presets")]

    async def templates(self) -> list[Template]:
        """Return the prompt templates."""
        return [Template.from_json(entry) for entry in await self._list("/v1/templates")]

    async def models(self) -> list[ModelView]:
        """Return the base models that the server has."""
        return [ModelView.from_json(entry) for entry in await self._list("/v1/models")]

    async def _list(self, path: str) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = await self._transport.get(path)
        return content

    async def compare(self, *runs: Any, split: str | None = None) -> Comparison:
        """Compare runs, checkpoints (`run_id@step`) or evaluations on the same rows."""
        content = await self._transport.get("/v1/compare", runs=_entries(runs), split=split)
        return Comparison.from_json(content)

    async def compare_as(self, format: str, *runs: Any, split: str | None = None) -> str:
        """Return the comparison as text: json or html."""
        return await self._transport.text(
            "/v1/compare", runs=_entries(runs), split=split, format=format
        )


def _entries(runs: tuple[Any, ...]) -> str:
    return ",".join(getattr(run, "id", run) for run in runs)
