"""The example of a configuration for Envoy in docs/deployment.md; Envoy itself has not read it."""

from pathlib import Path
from typing import Any

import yaml

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "deployment.md").read_text("utf-8")


def example() -> Any:
    (section,) = (part for part in TEXT.split("\n### ") if part.startswith("Envoy\n"))
    assert "**Not checked here**" in section
    return yaml.safe_load(section.partition("```yaml\n")[2].partition("```")[0])


def test_it_is_yaml_whose_routes_lead_to_clusters_that_are_there() -> None:
    resources = example()["static_resources"]
    clusters = {cluster["name"]: cluster for cluster in resources["clusters"]}
    (listener,) = resources["listeners"]
    (chain,) = listener["filter_chains"]
    (manager,) = chain["filters"]
    (host,) = manager["typed_config"]["route_config"]["virtual_hosts"]
    live, batches = host["routes"]
    assert live["match"]["prefix"] == "/lipwire.v1.AvatarService/"
    assert batches["route"]["hash_policy"] == [{"header": {"header_name": "x-model-id"}}]
    assert {route["route"]["cluster"] for route in host["routes"]} <= set(clusters)
    for name, cluster in clusters.items():
        assert cluster["load_assignment"]["cluster_name"] == name
        assert cluster["lb_policy"] == "RING_HASH"
        assert "grpc_health_check" in cluster["health_checks"][0]
