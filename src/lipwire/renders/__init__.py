"""Finished videos: ordered as jobs in a queue that survives a restart, rendered behind all live
sessions, kept for a while, and delivered under addresses that may be signed."""

from lipwire.renders.job import (
    FORMATS,
    Failure,
    Job,
    JobCounts,
    Order,
    State,
    Video,
    VideoFormat,
)
from lipwire.renders.joblist import JobList, KeyTaken
from lipwire.renders.links import SignedLinks
from lipwire.renders.renders import RenderRules, Renders
from lipwire.renders.webhooks import WebhookRules

__all__ = [
    "FORMATS",
    "Failure",
    "Job",
    "JobCounts",
    "JobList",
    "KeyTaken",
    "Order",
    "RenderRules",
    "Renders",
    "SignedLinks",
    "State",
    "Video",
    "VideoFormat",
    "WebhookRules",
]
