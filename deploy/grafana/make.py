"""Write the dashboards in dashboards/: `python deploy/grafana/make.py`.

Each is a table of panels here, since Grafana's files are long and say everything many times.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "dashboards"
_WIDTH: Final = 24
_PANEL_WIDTH: Final = 8
_PANEL_HEIGHT: Final = 7
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_OF: Final = 'instance=~"$instance"'


@dataclass(frozen=True)
class Panel:
    """One picture: what it shows (``title`` and ``about``), the queries (legend to PromQL), and the
    unit, as Grafana calls it. ``limit`` is the metric with its limit, drawn as a line."""

    title: str
    about: str
    queries: dict[str, str]
    unit: str = "short"
    limit: str = ""


def per_frame(name: str) -> dict[str, str]:
    """The mean and the 99th percentile of the histogram ``name``."""
    return {
        "mean {{instance}}": f"sum by (instance) (rate({name}_sum{{{_OF}}}[$__rate_interval])) /"
        f" (sum by (instance) (rate({name}_count{{{_OF}}}[$__rate_interval])) > 0)",
        "p99 {{instance}}": "histogram_quantile(0.99, sum by (instance, le)"
        f" (rate({name}_bucket{{{_OF}}}[$__rate_interval])))",
    }


OPERATOR: Final = (
    Panel(
        "Up", "1 where Prometheus gets an answer.", {"{{instance}}": f'up{{job="lipwire", {_OF}}}'}
    ),
    Panel(
        "Can make mouths",
        "1 where the networks can be run, here or on inference servers.",
        {"{{instance}}": f"lipwire_healthy{{{_OF}}}"},
    ),
    Panel(
        "Versions",
        "Processes by their version.",
        {"{{version}}": f"count by (version) (lipwire_build_info{{{_OF}}})"},
    ),
    Panel(
        "Requests a second",
        "By how they ended.",
        {"{{code}}": f"sum by (code) (rate(lipwire_requests_total{{{_OF}}}[$__rate_interval]))"},
        "reqps",
    ),
    Panel(
        "Errors",
        "Share of requests that the server should have answered; the guide's limit is 0.1 %.",
        {"{{instance}}": f"lipwire:error_ratio{{{_OF}}}"},
        "percentunit",
        "lipwire:limit:error_ratio",
    ),
    Panel(
        "Refusals a second",
        "By limits, quotas, credentials and permissions.",
        {
            "{{reason}} {{tenant_class}}": "sum by (reason, tenant_class)"
            f" (rate(lipwire_refusals_total{{{_OF}}}[$__rate_interval]))"
        },
        "reqps",
    ),
    Panel(
        "Request time, p99",
        "By call; live sessions and streams are not in it.",
        {
            "{{call}}": "histogram_quantile(0.99, sum by (call, le)"
            f" (rate(lipwire_request_seconds_bucket{{{_OF}}}[$__rate_interval])))"
        },
        "s",
    ),
    Panel(
        "Inference a frame",
        "16 to 20 ms on the guide's GPU.",
        per_frame("lipwire_inference_seconds"),
        "s",
        "lipwire:limit:inference_seconds",
    ),
    Panel(
        "Composing a frame",
        "2 to 3 ms in the guide.",
        per_frame("lipwire_composite_seconds"),
        "s",
        "lipwire:limit:composite_seconds",
    ),
    Panel(
        "JPEG a frame",
        "Part of composing; 2.5 ms at quality 75 in the guide.",
        per_frame("lipwire_jpeg_seconds"),
        "s",
        "lipwire:limit:jpeg_seconds",
    ),
    Panel(
        "Queue",
        "Requests that wait, as a share of queue_size.",
        {"{{instance}} {{device}}": f"lipwire:queue_ratio{{{_OF}}}"},
        "percentunit",
        "lipwire:limit:queue_ratio",
    ),
    Panel(
        "Waiting, p99",
        "How long requests for mouths wait for a worker.",
        {
            "{{service}}": "histogram_quantile(0.99, sum by (service, le)"
            f" (rate(lipwire_queue_wait_seconds_bucket{{{_OF}}}[$__rate_interval])))"
        },
        "s",
    ),
)

CAPACITY: Final = (
    Panel(
        "Processor",
        "Share of the cores; 50 to 80 % in the guide.",
        {"{{instance}}": f"lipwire:processor_ratio{{{_OF}}}"},
        "percentunit",
        "lipwire:limit:processor_ratio",
    ),
    Panel(
        "Memory",
        "Resident, of all processes of a server.",
        {"{{instance}}": f"process_resident_memory_bytes{{{_OF}}}"},
        "bytes",
    ),
    Panel(
        "Workers",
        "Share that runs a network.",
        {"{{instance}} {{device}}": f"lipwire:workers_ratio{{{_OF}}}"},
        "percentunit",
    ),
    Panel(
        "GPU",
        "Share of time at work; 80 to 95 % in the guide. Empty without GPUs.",
        {"{{instance}} {{gpu}}": f"lipwire_gpu_utilization_ratio{{{_OF}}}"},
        "percentunit",
        "lipwire:limit:gpu_utilization_ratio",
    ),
    Panel(
        "GPU memory",
        "Used by all programs. Empty without GPUs.",
        {"{{instance}} {{gpu}}": f"lipwire_gpu_memory_used_bytes{{{_OF}}}"},
        "bytes",
    ),
    Panel(
        "Networks",
        "Loaded, by what runs them.",
        {
            "{{device}} {{runner}} {{precision}}": "sum by (device, runner, precision)"
            f" (lipwire_networks{{{_OF}}})"
        },
    ),
    Panel(
        "Found loaded",
        "Share of uses; above 99 % in the guide.",
        {"{{instance}} {{cache}}": f"lipwire:cache_hit_ratio{{{_OF}}}"},
        "percentunit",
        "lipwire:limit:cache_hit_ratio",
    ),
    Panel(
        "Loaded",
        "Avatars, or networks on an inference server.",
        {"{{instance}} {{cache}}": f"lipwire_resident{{{_OF}}}"},
    ),
    Panel(
        "Their memory",
        "Mapped files, and what was loaded.",
        {"{{instance}} {{cache}}": f"lipwire_resident_bytes{{{_OF}}}"},
        "bytes",
    ),
    Panel(
        "Loads and evictions a second",
        "Evictions make room for loads.",
        {
            "loads": f"sum(rate(lipwire_loads_total{{{_OF}}}[$__rate_interval]))",
            "evictions": f"sum(rate(lipwire_cache_evictions_total{{{_OF}}}[$__rate_interval]))",
            "failures": f"sum(rate(lipwire_load_failures_total{{{_OF}}}[$__rate_interval]))",
        },
    ),
    Panel(
        "Cold start",
        "How long avatars took to load.",
        per_frame("lipwire_avatar_cold_start_seconds"),
        "s",
    ),
    Panel(
        "Frames a second",
        "Mouths that networks made, by class.",
        {
            "{{service}}": "sum by (service)"
            f" (rate(lipwire_frames_total{{{_OF}}}[$__rate_interval]))"
        },
    ),
    Panel(
        "Disk of finished videos",
        "And of the recordings for them. Empty where no videos are made.",
        {"{{instance}}": f"lipwire_renders_disk_bytes{{{_OF}}}"},
        "bytes",
    ),
)

TENANT: Final = (
    Panel(
        "Live sessions",
        "Now, and how many there may be.",
        {
            "active {{instance}}": f"lipwire_sessions_active{{{_OF}}}",
            "capacity {{instance}}": f"lipwire_sessions_capacity{{{_OF}}}",
            "waiting {{instance}}": f"lipwire_sessions_waiting{{{_OF}}}",
        },
    ),
    Panel(
        "First frame",
        "From asking for a session to its first frame.",
        per_frame("lipwire_first_frame_seconds"),
        "s",
        "lipwire:limit:first_frame_seconds",
    ),
    Panel(
        "Frames left out a second",
        "late: the mouth; pacing: the machine; unread: the client.",
        {
            "{{reason}}": "sum by (reason)"
            f" (rate(lipwire_frame_deadline_missed_total{{{_OF}}}[$__rate_interval]))"
        },
    ),
    Panel(
        "Picture after sound",
        "When they leave the server; viewers see none of it below 45 ms.",
        per_frame("lipwire_av_offset_seconds"),
        "s",
        "lipwire:limit:av_offset_seconds",
    ),
    Panel(
        "Sessions ended a second",
        "By the reason.",
        {
            "{{reason}}": "sum by (reason)"
            f" (rate(lipwire_sessions_ended_total{{{_OF}}}[$__rate_interval]))"
        },
    ),
    Panel(
        "Refusals of tenants a second",
        "429, 402, 401 and 403, or RESOURCE_EXHAUSTED, UNAUTHENTICATED and PERMISSION_DENIED.",
        {
            "{{reason}}": "sum by (reason)"
            f' (rate(lipwire_refusals_total{{{_OF}, tenant_class="tenant"}}[$__rate_interval]))'
        },
        "reqps",
    ),
    Panel(
        "Batch time, p99",
        "What the guide's clients wait for a batch.",
        {
            "{{instance}}": "histogram_quantile(0.99, sum by (instance, le)"
            ' (rate(lipwire_request_seconds_bucket{call=~".*InferBatchComposite", '
            f"{_OF}}}[$__rate_interval])))"
        },
        "s",
    ),
    Panel(
        "Viewers",
        "Over WebRTC or a socket.",
        {"{{instance}}": f"lipwire_viewers{{{_OF}}}"},
    ),
    Panel(
        "Sessions refused a second",
        "For want of room.",
        {"{{instance}}": f"rate(lipwire_sessions_refused_total{{{_OF}}}[$__rate_interval])"},
    ),
    Panel(
        "Finished videos, pending",
        "Those that wait, and that are being made. Empty where no videos are made.",
        {"{{state}}": f"sum by (state) (lipwire_renders_pending{{{_OF}}})"},
    ),
    Panel(
        "Finished videos an hour",
        "That have ended, by how.",
        {
            "{{state}}": "3600 * sum by (state)"
            f" (rate(lipwire_renders_total{{{_OF}}}[$__rate_interval]))"
        },
    ),
)

DASHBOARDS: Final = {
    "operator": ("Lipwire: operation", OPERATOR),
    "capacity": ("Lipwire: capacity", CAPACITY),
    "tenant": ("Lipwire: what tenants see", TENANT),
}


def dashboard(name: str) -> str:
    """Return the file of the dashboard called ``name``."""
    title, panels = DASHBOARDS[name]
    made = {
        "uid": f"lipwire-{name}",
        "title": title,
        "tags": ["lipwire"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "editable": True,
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"},
                {
                    "name": "instance",
                    "type": "query",
                    "label": "Server",
                    "datasource": _SOURCE,
                    "query": "label_values(lipwire_build_info, instance)",
                    "includeAll": True,
                    "multi": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                    "refresh": 2,
                },
            ]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }
    return json.dumps(made, indent=2) + "\n"


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    a_row = _WIDTH // _PANEL_WIDTH
    queries = dict(panel.queries)
    if panel.limit:
        queries["limit"] = panel.limit
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {
            "x": number % a_row * _PANEL_WIDTH,
            "y": number // a_row * _PANEL_HEIGHT,
            "w": _PANEL_WIDTH,
            "h": _PANEL_HEIGHT,
        },
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0},
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": "limit"},
                    "properties": [
                        {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
                        {
                            "id": "custom.lineStyle",
                            "value": {"fill": "dash", "dash": [10, 10]},
                        },
                    ],
                }
            ]
            if panel.limit
            else [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query,
                "legendFormat": legend,
            }
            for index, (legend, query) in enumerate(queries.items())
        ],
    }


if __name__ == "__main__":
    for each in DASHBOARDS:
        (FOLDER / f"{each}.json").write_text(dashboard(each), encoding="utf-8")
