"""The chart in deploy/helm, rendered by Helm and read as Kubernetes reads objects; nothing is
installed anywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from lipwire.config import load_compositing_config, load_inference_config

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "lipwire"
INSECURE = {"insecure": True, "tls": {"enabled": False}}
VALUES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "insecure": INSECURE,
    "hpa": {
        "inference": {"autoscaling": {"kind": "hpa"}},
        "compositing": {"autoscaling": {"kind": "hpa"}},
    },
    "keda": {
        "inference": {"autoscaling": {"kind": "keda"}},
        "compositing": {"autoscaling": {"kind": "keda"}},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "plain": {
        "haproxy": {"enabled": False},
        "networkPolicy": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        "compositing": {"web": {"enabled": False}},
        "createSecrets": {"enabled": True, "keysJson": "{}", "webToken": "a" * 20},
    },
    "everything": {
        "namePrefix": "blue-",
        "imagePullSecrets": [{"name": "registry"}],
        "inference": {"env": [{"name": "A", "value": "b"}], "podAnnotations": {"a": "b"}},
        "haproxy": {"replicas": 2, "service": {"type": "LoadBalancer", "annotations": {"a": "b"}}},
        "compositing": {"runtimeClassName": "runc", "drainTimeoutSeconds": 900},
        "networkPolicy": {"clients": [{"namespaceSelector": {}}], "compositingEgress": [{}]},
        "renders": {
            "enabled": True,
            "config": {"workers": 2},
            "env": [{"name": "LIPWIRE_RENDERS__URL_SECRET", "value": "b"}],
        },
        "serviceMonitor": {"enabled": True},
    },
    "renders, insecure and plain": INSECURE
    | {
        "haproxy": {"enabled": False},
        "renders": {"enabled": True},
    },
}
WITHOUT_HAPROXY = ("plain", "renders, insecure and plain")
every_way = pytest.mark.parametrize("way", VALUES)

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}


def _object(**members: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": members,
        "additionalProperties": False,
        "required": [name for name, schema in members.items() if not schema.get("optional")],
    }


_SECRET_KEY = _object(name=_TEXT, key=_TEXT)
OTHERS: dict[str, Any] = {
    # https://keda.sh/docs/2.17/reference/scaledobject-spec/ and scalers/prometheus: what is used.
    "keda.sh/v1alpha1 ScaledObject": _object(
        scaleTargetRef=_object(name=_TEXT),
        minReplicaCount=_COUNT,
        maxReplicaCount=_COUNT,
        cooldownPeriod=_COUNT,
        triggers={
            "type": "array",
            "minItems": 1,
            "items": _object(
                type={"const": "prometheus"},
                metricType={"enum": ["AverageValue", "Value"]},
                metadata=_object(serverAddress=_TEXT, query=_TEXT, threshold=_TEXT),
            ),
        },
        advanced=_object(horizontalPodAutoscalerConfig=_object(behavior={"type": "object"})),
    ),
    # https://prometheus-operator.dev/docs/api-reference/api/: what is used.
    "monitoring.coreos.com/v1 ServiceMonitor": _object(
        jobLabel=_TEXT,
        selector={
            "type": "object",
            "properties": {
                "matchLabels": {"type": "object"},
                "matchExpressions": {"type": "array"},
            },
            "additionalProperties": False,
        },
        endpoints={
            "type": "array",
            "minItems": 1,
            "items": _object(
                port=_TEXT,
                interval={"type": "string", "pattern": r"^\d+[smh]$"},
                relabelings={
                    "type": "array",
                    "items": _object(targetLabel=_TEXT, replacement=_TEXT),
                },
                scheme={"enum": ["http", "https"], "optional": True},
                tlsConfig={
                    **_object(serverName=_TEXT, ca=_object(secret=_SECRET_KEY)),
                    "optional": True,
                },
                authorization={
                    **_object(type=_TEXT, credentials=_SECRET_KEY),
                    "optional": True,
                },
            ),
        },
    ),
}
"""Schemas of what Kubernetes itself does not have, of the members that are used."""


@cache
def _rendered(way: str) -> list[dict[str, Any]]:
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(str(CHART)) as chart:
        texts = chart.render(VALUES[way], name="test", namespace="video")
    return [
        document
        for name, text in texts.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def of_kind(way: str, kind: str) -> dict[str, dict[str, Any]]:
    """Objects by name."""
    return {
        document["metadata"]["name"]: document
        for document in _rendered(way)
        if document["kind"] == kind
    }


def rendering(way: str) -> bool:
    """Whether there is a server for finished videos."""
    return bool(VALUES[way].get("renders"))


def container(way: str, name: str) -> dict[str, Any]:
    (found,) = of_kind(way, "Deployment")[name]["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_helm_finds_nothing_wrong() -> None:
    helm = pytest.importorskip("helm_python")
    for values in VALUES.values():
        report = helm.lint(str(CHART), values, strict=True, kube_version="v1.33.0")
        assert report["errors"] == []
        assert [one for one in report["messages"] if one["severity"] > 1] == []


@cache
def _kubernetes() -> Any:
    """The package kubernetes-validate; it reads a schema once, and not for each object."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)
    return kubernetes_validate


@pytest.mark.slow
@every_way
def test_objects_are_as_kubernetes_has_them(way: str) -> None:
    kubernetes_validate = _kubernetes()
    jsonschema = pytest.importorskip("jsonschema")
    for document in _rendered(way):
        kind = f"{document['apiVersion']} {document['kind']}"
        if kind in OTHERS:
            jsonschema.validate(document["spec"], OTHERS[kind])
        else:
            for version in ("1.29", "1.33"):
                kubernetes_validate.validate(document, version, strict=True)


@every_way
def test_no_two_objects_have_one_name(way: str) -> None:
    names = Counter((one["kind"], one["metadata"]["name"]) for one in _rendered(way))
    assert max(names.values()) == 1


@every_way
def test_servers_take_their_configuration(way: str, tmp_path: Path) -> None:
    prefix = VALUES[way].get("namePrefix", "")
    maps = of_kind(way, "ConfigMap")
    servers = [("inference-server", "inference"), ("compositing-server", "compositing")]
    if rendering(way):
        servers.append(("render-server", "compositing"))
    for name, file in servers:
        path = tmp_path / f"{file}.yaml"
        path.write_text(maps[prefix + name]["data"][f"{file}.yaml"])
        config: Any
        if file == "inference":
            config = load_inference_config(path, {})
        else:
            config = load_compositing_config(path, {})
            (address,) = config.inference_server.url
            service = of_kind(way, "Service")[address.split(":")[0]]
            assert service["spec"]["ports"][0]["port"] == 50051
            assert (config.renders.folder is not None) is (name == "render-server")
        assert config.closed(config.server) is ("insecure" not in way)
        pod = of_kind(way, "Deployment")[prefix + name]["spec"]["template"]["spec"]
        wait = config.server.drain_delay
        assert wait >= 5  # HAProxy looks every 2 s
        assert pod["terminationGracePeriodSeconds"] >= wait + config.drain_timeout_s + 30
        ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
        assert ports["grpc"] == config.server.port
        assert ports["metrics"] == config.metrics.port


@every_way
def test_what_is_selected_is_there(way: str) -> None:
    pods = [
        one["spec"]["template"]["metadata"]["labels"] for one in of_kind(way, "Deployment").values()
    ]
    selectors = [one["spec"]["selector"] for one in of_kind(way, "Service").values()]
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        selectors += [one["spec"][key]["matchLabels"] for one in of_kind(way, kind).values()]
    for selector in selectors:
        assert sum(selector.items() <= labels.items() for labels in pods) == 1


@every_way
def test_secrets_and_volumes_that_are_mounted_are_declared(way: str) -> None:
    for one in of_kind(way, "Deployment").values():
        spec = one["spec"]["template"]["spec"]
        declared = {volume["name"] for volume in spec["volumes"]}
        for each in spec["containers"]:
            assert {mount["name"] for mount in each["volumeMounts"]} == declared
            assert each["securityContext"]["readOnlyRootFilesystem"] is True


def test_inference_servers_are_the_guides() -> None:
    deployment = of_kind("as it is", "Deployment")["inference-server"]["spec"]
    assert deployment["replicas"] == 3
    pod = deployment["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_the_server_of_finished_videos_keeps_its_folder_to_itself() -> None:
    name = "blue-render-server"
    spec = of_kind("everything", "Deployment")[name]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    volumes = {volume.pop("name"): volume for volume in map(dict, pod["volumes"])}
    assert volumes["state"] == {"persistentVolumeClaim": {"claimName": "lipwire-renders"}}
    (server,) = pod["containers"]
    assert server["args"][0] == "compositing-server"
    (mount,) = (mount for mount in server["volumeMounts"] if mount["name"] == "state")
    text = of_kind("everything", "ConfigMap")[name]["data"]["compositing.yaml"]
    renders = yaml.safe_load(text)["renders"]
    assert renders == {"folder": f"{mount['mountPath']}/renders", "workers": 2}
    assert "LIPWIRE_RENDERS__URL_SECRET" in [one["name"] for one in server["env"]]
    assert name not in of_kind("everything", "PodDisruptionBudget"), "or its node cannot be emptied"


def test_probes_follow_encryption() -> None:
    secure, plain = (
        container("as it is", "inference-server"),
        container("insecure", "inference-server"),
    )
    assert secure["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert "--tls-name" in secure["livenessProbe"]["exec"]["command"]
    assert plain["readinessProbe"]["httpGet"]["scheme"] == "HTTP"
    assert "--tls-ca" not in plain["livenessProbe"]["exec"]["command"]


def test_who_scales_is_not_given_a_number_of_replicas() -> None:
    for way in ("hpa", "keda"):
        for name in ("inference-server", "compositing-server"):
            assert "replicas" not in of_kind(way, "Deployment")[name]["spec"]
    assert set(of_kind("hpa", "HorizontalPodAutoscaler")) == set(of_kind("keda", "ScaledObject"))
    queries = str(of_kind("keda", "ScaledObject"))
    for number in (
        "lipwire_gpu_utilization_ratio",
        "lipwire_queue_depth",
        "lipwire_sessions_active",
    ):
        assert number in queries


def test_what_is_not_safe_has_to_be_said() -> None:
    helm = pytest.importorskip("helm_python")
    for values in ({"tls": {"enabled": False}}, {"insecure": True}):
        with helm.Chart.load(str(CHART)) as chart, pytest.raises(helm.HelmError, match="insecure"):
            chart.render(values, name="test", namespace="video")


@pytest.mark.slow
@pytest.mark.parametrize("way", [way for way in VALUES if way not in WITHOUT_HAPROXY])
def test_haproxy_takes_its_configuration(way: str, tmp_path: Path) -> None:
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("needs haproxy")
    name = VALUES[way].get("namePrefix", "") + "haproxy"
    text = of_kind(way, "ConfigMap")[name]["data"]["haproxy.cfg"]
    if way != "insecure":
        from datetime import UTC, datetime

        from lipwire.security.devcerts import make_certificates

        make_certificates(tmp_path, ["lipwire"], client="haproxy", now=datetime.now(UTC))
        (tmp_path / "server.key").rename(tmp_path / "tls.crt.key")
        (tmp_path / "server.crt").rename(tmp_path / "tls.crt")
        text = text.replace("/etc/haproxy/tls/", f"{tmp_path}/")
    (tmp_path / "haproxy.cfg").write_text(text)
    said = subprocess.run(
        [program, "-c", "-dW", "-q", "-f", tmp_path / "haproxy.cfg"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize("way", [way for way in VALUES if way not in WITHOUT_HAPROXY])
def test_pods_keep_their_addresses_while_dns_fails(way: str) -> None:
    """And lose them where it knows that they are gone (nx)."""
    name = VALUES[way].get("namePrefix", "") + "haproxy"
    text = of_kind(way, "ConfigMap")[name]["data"]["haproxy.cfg"]
    held = re.findall(r"^    hold (\S+) \d+d$", text, re.M)
    assert sorted(held) == ["other", "refused", "timeout"]


RULE = re.compile(r"    (http-check disable|balance|hash-|stick[ -]|(use|default)_backend)")


def rules(text: str) -> dict[str, list[str]]:
    """What HAProxy's configuration says of who gets what, by section. How names are looked up, what
    is encrypted, and who is told where sessions are differ."""
    said: dict[str, list[str]] = {}
    section = ""
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            section = line
        elif RULE.match(line):
            said.setdefault(section, []).append(line.strip().removesuffix(" peers lipwire"))
    return said


@pytest.mark.parametrize("way", [way for way in VALUES if way not in WITHOUT_HAPROXY])
def test_haproxys_rules_are_those_of_the_file(way: str) -> None:
    name = VALUES[way].get("namePrefix", "") + "haproxy"
    charts = rules(of_kind(way, "ConfigMap")[name]["data"]["haproxy.cfg"])
    text = (CHART.parents[1] / "haproxy" / "haproxy.cfg").read_text()
    files = {
        section: [rule for rule in said if rendering(way) or "renders" not in rule]
        for section, said in rules(text).items()
        if rendering(way) or "renders" not in section
    }
    assert len(files) >= 9
    assert charts == {section: files[section] for section in files if section in charts}
    assert {"frontend http", "backend web"} >= set(files) - set(charts)


# -- values.schema.json ----------------------------------------------------------------------------

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
FREE = {"config", "affinity", "volume", "cacheVolume", "global"}
"""Objects whose members are Lipwire's, Kubernetes' or other charts' to check."""


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema``, or what it refers to."""
    reference = schema.get("$ref")
    found = SCHEMA["definitions"][reference.rpartition("/")[2]] if reference else schema
    assert isinstance(found, dict)
    return found


def keys_of_schema(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, member in schema.get("properties", {}).items():
        yield f"{path}{name}"
        yield from keys_of_schema(plain(member), f"{path}{name}.")


def keys_of_values(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{path}{name}"
        if isinstance(value, dict) and name not in FREE:
            yield from keys_of_values(value, f"{path}{name}.")


def test_the_schema_has_the_keys_of_the_values() -> None:
    values = set(keys_of_values(yaml.safe_load((CHART / "values.yaml").read_text())))
    maps = (".requests.", ".limits.", ".nodeSelector.")  # of any keys
    values = {key for key in values if not any(name in key for name in maps)}
    schema = set(keys_of_schema(SCHEMA))
    assert values ^ schema == {"global"}  # which Helm makes for other charts


def test_no_key_is_taken_that_the_schema_does_not_name() -> None:
    def closed(schema: dict[str, Any], name: str) -> None:
        if schema.get("type") == "object" and name not in FREE:
            assert "additionalProperties" in schema, name
        for member, inner in schema.get("properties", {}).items():
            closed(plain(inner), member)

    closed(SCHEMA, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inferance": {}}, "'inferance' not allowed"),
        ({"inference": {"replica": 3}}, "'/inference': additional properties 'replica'"),
        ({"inference": {"replicas": "three"}}, "'/inference/replicas': got string, want integer"),
        ({"compositing": {"replicas": -1}}, "'/compositing/replicas': minimum: got -1, want 0"),
        ({"inference": {"autoscaling": {"kind": "vpa"}}}, "one of '', 'hpa', 'keda'"),
        (
            {"inference": {"autoscaling": {"gpuUtilization": 80}}},
            "'/inference/autoscaling/gpuUtilization': maximum: got 80, want 1",
        ),
        ({"inference": {"autoscaling": {"gpuUtilization": "80"}}}, "'80' does not match"),
        ({"inference": {"minAvailable": "two"}}, "'two' does not match"),
        ({"inference": {"config": []}}, "'/inference/config': got array, want object"),
        ({"inference": {"env": [{"value": "a"}]}}, "missing property 'name'"),
        ({"inference": {"image": {"pullPolicy": "always"}}}, "one of 'Always'"),
        ({"compositing": {"drainTimeoutSeconds": "5m"}}, "got string, want integer"),
        ({"compositing": {"resources": {"limits": {"memory": "8 GB"}}}}, "'8 GB' does not match"),
        ({"haproxy": {"service": {"type": "Ingress"}}}, "one of 'ClusterIP'"),
        ({"avatars": {"volume": {"nfs": {}}}}, "'/avatars/volume': maxProperties: got 2, want 1"),
        ({"createSecrets": {"webToken": "short"}}, "'/createSecrets/webToken': 'short'"),
        ({"serviceMonitor": {"interval": "15"}}, "'/serviceMonitor/interval': '15'"),
        ({"keda": {"prometheusAddress": "prometheus:9090"}}, "'prometheus:9090' does not match"),
        ({"namePrefix": "Blue_"}, "'/namePrefix': 'Blue_' does not match"),
        ({"topologySpread": {"whenUnsatisfiable": "Never"}}, "one of 'DoNotSchedule'"),
        ({"insecure": "yes"}, "'/insecure': got string, want boolean"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], said: str) -> None:
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(str(CHART)) as chart, pytest.raises(helm.HelmValuesError) as refused:
        chart.render(values, name="test", namespace="video")
    assert said in str(refused.value)


def test_scaling_between_a_larger_and_a_smaller_number_is_refused() -> None:
    helm = pytest.importorskip("helm_python")
    values = {"compositing": {"autoscaling": {"kind": "hpa", "minReplicas": 30}}}
    with (
        helm.Chart.load(str(CHART)) as chart,
        pytest.raises(helm.HelmError, match="is 30; allowed"),
    ):
        chart.render(values, name="test", namespace="video")


def test_a_volume_of_another_kind_takes_the_place_of_the_claim() -> None:
    helm = pytest.importorskip("helm_python")
    volume = {"persistentVolumeClaim": None, "nfs": {"server": "a", "path": "/b"}}
    with helm.Chart.load(str(CHART)) as chart:
        texts = chart.render({"avatars": {"volume": volume}}, name="test", namespace="video")
    assert "nfs:" in "".join(texts.values())
    assert "persistentVolumeClaim" not in "".join(texts.values())
