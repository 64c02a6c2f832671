"""Static deltas of an OSTree repository."""

from orchestrator.adapters.ostree.provider import OstreeProvider, OstreeSettings

__all__ = ["OstreeProvider", "OstreeSettings"]
