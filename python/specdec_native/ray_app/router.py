"""Chooses the replica of a request, in the process that sends it."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import RequestRouter

from . import known
from .prefixes import PrefixTable


class PrefixRouter(RequestRouter):  # type: ignore[misc]  # Ray has no types
    """The replica that has read most of the prompt, unless others have much less to do.

    Reads the keywords `blocks` (of `blocks_of`) and `to` (the one replica that is meant) of calls.
    """

    def initialize_state(self, slack: int = 8) -> None:
        self._table = PrefixTable()
        self._slack = slack

    def update_replicas(self, replicas: list[Any]) -> None:
        super().update_replicas(replicas)
        names = frozenset(replica.replica_id.unique_id for replica in replicas)
        # Ray copies what this module holds; another one is the front's, too.
        known.replicas[self._deployment_id.name] = names
        self._table.keep_only(set(names))

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas]
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        pending_request.routing_context.should_backoff = True
        wanted = pending_request.kwargs.get("to")
        if wanted in by_name:
            return [[by_name[wanted]]]
        cache = self.replica_queue_len_cache
        loads = {name: cache.get(r.replica_id) or 0 for name, r in by_name.items()}
        blocks = pending_request.kwargs.get("blocks", ())
        order = self._table.order(blocks, loads, self._slack)
        self._table.note(blocks, order[0])  # now: the next of a burst comes before it is sent
        return [[by_name[name]] for name in order]

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        self._table.note(pending_request.kwargs.get("blocks", ()), replica_id.unique_id)
