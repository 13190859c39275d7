"""The page on operations, the manifests and the command line tell the same."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from actorkit import SystemSettings
from actorkit.actor import ActorSettings, SupervisionStrategy
from actorkit.gateway.settings import GatewaySettings
from actorkit.journal.settings import SqliteSettings
from examples.capacity_service.__main__ import cli
from tests.capacity_service import service

PROJECT = Path(__file__).parent.parent
PAGE = (PROJECT / "docs" / "operations.md").read_text()
MANIFEST = list(yaml.safe_load_all((PROJECT / "deploy" / "kubernetes.yaml").read_text()))
COMPOSE = yaml.safe_load((PROJECT / "deploy" / "compose.yaml").read_text())
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OPTIONS = {option for param in cli.commands["node"].params for option in param.opts}


def settings(of: object) -> Iterator[tuple[str, Any]]:
    assert isinstance(of, msgspec.Struct | ActorSettings)
    for field in dataclasses.fields(of) if isinstance(of, ActorSettings) else msgspec.structs.fields(of):
        value = getattr(of, field.name)
        if isinstance(value, msgspec.Struct):
            yield from settings(value)
        else:
            yield field.name, value


@pytest.mark.parametrize(
    "part",
    [
        *(getattr(SystemSettings(), name) for name in SystemSettings.__struct_fields__),
        SqliteSettings(),
        GatewaySettings(),
    ],
    ids=lambda part: type(part).__name__,
)
def test_every_setting_is_on_the_page_with_its_default(part: object) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| \S", PAGE, re.MULTILINE)
    for name, value in settings(part):
        shown = f"{value:g}" if isinstance(value, float) and value.is_integer() else repr(value)
        if isinstance(value, SupervisionStrategy):
            shown = "`SupervisionStrategy()`"
        assert (name, shown) in rows, f"{part}: {name} = {shown}"


def test_every_option_that_the_page_names_exists() -> None:
    named = set(re.findall(r"(?:node|`)[^`\n]*?(--[a-z-]+)", PAGE))
    assert "--operator-tokens" in named
    assert named <= OPTIONS | {"--all", "--json", "--token-file", "--help", "--nodes", "--base-http"}


async def test_every_metric_that_a_node_shows_is_on_the_page_and_no_other(tmp_path: Path) -> None:
    async with service.serving(service.settings(tmp_path)) as client:
        await client.pool("p", 1)
        text = (await client.get("/metrics")).body
    shown: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith(("process_", "python_")):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels if label != "le"})
        shown[f"{name}{{{','.join(labels)}}}" if labels else name] = family.documentation
    assert "http_streams" in shown
    assert dict(re.findall(r"^\| `([a-z_]+(?:\{\S+\})?)` \| ([^|]+) \|$", PAGE, re.MULTILINE)) == shown


def test_the_nodes_of_the_manifests_are_started_with_options_that_exist() -> None:
    variables = {f"ACTORKIT_{option.lstrip('-').upper().replace('-', '_')}" for option in OPTIONS}
    [stateful_set] = [each for each in MANIFEST if each["kind"] == "StatefulSet"]
    [container] = stateful_set["spec"]["template"]["spec"]["containers"]
    used = {entry["name"] for entry in container["env"] if entry["name"].startswith("ACTORKIT_")}
    used |= {name for service in COMPOSE["services"].values() for name in service["environment"]}
    assert {"ACTORKIT_SEEDS", "ACTORKIT_ADVERTISE", "ACTORKIT_SECRET_FILE"} <= used <= variables


def test_the_manifest_has_what_a_cluster_needs() -> None:
    kinds = {each["kind"] for each in MANIFEST}
    assert kinds == {"Service", "StatefulSet", "PodDisruptionBudget", "PersistentVolumeClaim"}
    headless = next(each for each in MANIFEST if each["spec"].get("clusterIP") == "None")
    assert headless["spec"]["publishNotReadyAddresses"] is True
    [stateful_set] = [each for each in MANIFEST if each["kind"] == "StatefulSet"]
    assert stateful_set["spec"]["serviceName"] == headless["metadata"]["name"]
    template = stateful_set["spec"]["template"]["spec"]
    [container] = template["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert "preStop" in container["lifecycle"]
    assert template["terminationGracePeriodSeconds"] >= 35
    [seeds] = [entry["value"] for entry in container["env"] if entry["name"] == "ACTORKIT_SEEDS"]
    assert len(seeds.split(",")) == stateful_set["spec"]["replicas"]


def test_the_program_that_hears_of_members_runs_as_written(tmp_path: Path) -> None:
    [block] = [block for block in BLOCKS if "cluster_events" in block]
    for seed in ("127.0.0.1:9080", "127.0.0.1:9081"):
        assert seed in block
        with socket.create_server(("127.0.0.1", 0)) as free:
            block = block.replace(seed, f"127.0.0.1:{free.getsockname()[1]}")
    lines = output_of(block, tmp_path).splitlines()
    assert "MemberUp: ['n1', 'n2']" in lines
    assert "MemberLeft: ['n1']" in lines
    assert lines[-1] == "MemberLeft: []"


def test_the_singleton_runs_as_written_and_goes_on_where_it_was(tmp_path: Path) -> None:
    [block] = [block for block in BLOCKS if "singletons=" in block]
    first, second = (int(output_of(block, tmp_path).removeprefix("sweeps: ")) for _ in range(2))
    assert 0 < first < second


def output_of(block: str, directory: Path) -> str:
    script = directory / "page.py"
    script.write_text(block)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
