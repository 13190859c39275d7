"""What the read model tells of itself, as metrics. All of it is kept anyway, and read when somebody asks."""

from __future__ import annotations

import math

from actorkit.gateway.metrics import Reading, readings_of
from actorkit.readmodel.read_model import ReadModel

__all__ = ["read_model_readings"]


def read_model_readings(read_model: ReadModel) -> list[Reading]:
    """Everything of the read model of a node of a cluster; append it to ``Metrics.readings``."""
    replicator = read_model.replicator
    assert replicator is not None
    counter = readings_of(read_model.counters, "actorkit_readmodel", "counter")
    gauge = readings_of(replicator.catalog, "actorkit_readmodel", "gauge")

    def lag_s() -> float:
        age_s = read_model.oldest_s
        return math.nan if age_s == math.inf else age_s

    return [
        Reading(
            "actorkit_readmodel_lag_seconds",
            "For how long, at most, something may have been committed that is not shown here; NaN: nobody can say.",
            "gauge",
            lag_s,
        ),
        gauge("documents", "Shards whose newest document is here.", "documents"),
        gauge("uncovered_shards", "Shards of which there is no document here yet.", "uncovered"),
        gauge("keys", "Keys in all documents, deleted ones included.", "keys"),
        gauge("document_bytes", "Keys and values in all documents.", "size_bytes"),
        gauge("replaced_values", "Values that were replaced, and have left their traces in documents.", "replaced"),
        counter("rounds", "Peers that were asked what they have.", "rounds"),
        counter("sent_updates", "Updates of documents that were sent.", "updates_sent"),
        counter("sent_update_bytes", "Bytes of these.", "update_bytes_sent"),
        counter("received_updates", "Updates of documents that have come.", "updates_received"),
        counter("received_update_bytes", "Bytes of these.", "update_bytes_received"),
        counter(
            "refused_updates",
            "Updates that were thrown away: damaged, forged, of another store, or beyond what the store knows.",
            "updates_refused",
        ),
        counter("gaps", "Updates that built on something that was missing; it was asked for.", "gaps"),
        counter("refused_values", "Values that do not fit the type that is declared here.", "values_refused"),
        counter("rewrites", "Documents that were written anew because they had grown.", "rewrites"),
        counter("adopted_shards", "Shards whose logs were read to the end after they were taken over.", "adopted"),
    ]
