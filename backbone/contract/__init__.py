"""Protobuf options -> topics, keys, writers; and the checks that make a table and its contracts agree before anything starts."""

from __future__ import annotations

from backbone.contract.agree import check_platform, resolve, resolve_context, said_by
from backbone.contract.resolved import Reaction, ResolvedDecider, ResolvedEffect, ResolvedService, ResolvedView
from backbone.contract.topics import (
    META_FIELD,
    Topic,
    all_topics,
    context_of,
    copies_of,
    files_under,
    is_effect,
    is_wrapper,
    primary_of,
    row_key,
    topic_of,
    topics_holding,
)

__all__ = [
    "META_FIELD",
    "Reaction",
    "ResolvedDecider",
    "ResolvedEffect",
    "ResolvedService",
    "ResolvedView",
    "Topic",
    "all_topics",
    "check_platform",
    "context_of",
    "copies_of",
    "files_under",
    "is_effect",
    "is_wrapper",
    "primary_of",
    "resolve",
    "resolve_context",
    "row_key",
    "said_by",
    "topic_of",
    "topics_holding",
]
