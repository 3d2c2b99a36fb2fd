"""docker-compose.yml says what the specification allows, pins what it runs, and shows little."""

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are not worth a dependency for one call

from meter.settings import SETTINGS, load
from tests.deploy import compose

ROOT = compose.ROOT
SCHEMA = json.loads((ROOT / "tests" / "data" / "compose-spec.json").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = compose.load()["services"]
# It only makes a role, and ends.
ERRANDS = {"grafana-role"}
BUILT = {"meter-1", "meter-2"}


def test_the_file_is_what_the_specification_says() -> None:
    """The compose specification's own schema finds nothing, and would find a mistake."""
    validator = jsonschema_rs.validator_for(SCHEMA)
    document = compose.load()

    assert [str(error) for error in validator.iter_errors(document)] == []
    document["services"]["redis"]["helthcheck"] = {}
    assert not validator.is_valid(document)


def test_there_is_everything() -> None:
    """Two servers, nginx, both databases, Prometheus and Grafana."""
    assert SERVICES.keys() - ERRANDS == {*BUILT, "nginx", "postgres", "redis", "prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    """An image has a whole version, and only what is built here has none."""
    image = SERVICES[name]["image"]

    assert (name in BUILT) == (image == "meter:local")
    assert name in BUILT or re.search(r":v?\d+\.\d+", image)


@pytest.mark.parametrize("name", SERVICES)
def test_containers_may_do_little(name: str) -> None:
    """Root's file system is read-only, nobody gains privileges, and only PostgreSQL keeps capabilities."""
    service = SERVICES[name]

    assert service["read_only"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name == "postgres" or service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ERRANDS - BUILT))
def test_services_say_how_they_are(name: str) -> None:
    """Each service has a health check; the image built here has its own."""
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_the_image_says_how_it_is_and_is_nobody() -> None:
    """The image checks its health, and does not run as root."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()

    assert any(line.startswith("HEALTHCHECK") for line in lines)
    assert "USER 10001:10001" in lines
    assert lines.index("USER 10001:10001") > max(n for n, line in enumerate(lines) if line.startswith("RUN"))


def test_only_this_machine_reaches_it() -> None:
    """What is published is published on loopback, and the databases are on a network without a way out."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published.keys() == {"nginx", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert compose.load()["networks"]["backend"] == {"internal": True}
    for name in ("postgres", "redis", "prometheus"):
        assert SERVICES[name]["networks"] == ["backend"]


def test_no_secret_is_in_the_file(tmp_path: Path) -> None:
    """Secrets are files that deploy/secrets.sh makes, each once, in a folder closed to others."""
    made = {entry["file"] for entry in compose.load()["secrets"].values()}
    subprocess.run(
        [ROOT / "deploy" / "secrets.sh", tmp_path / "secrets"],
        env={"PATH": "/usr/bin:/bin", "ROUTERHUB_API_KEY": "sk-x"},
        capture_output=True,
        check=True,
    )
    before = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    again = subprocess.run(
        [ROOT / "deploy" / "secrets.sh", tmp_path / "secrets"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )

    assert made == {f"./deploy/secrets/{name}" for name in before}
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert again.stdout == b""
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == before
    assert len({before[name] for name in before}) == len(before)
    assert re.fullmatch(r"[0-9a-f]{64}\n", before["pepper"])
    used = {
        secret if isinstance(secret, str) else secret["source"]
        for service in SERVICES.values()
        for secret in service.get("secrets", ())
    }
    assert used | {"grafana-admin-password"} == set(before)


@pytest.mark.parametrize("name", sorted(BUILT))
def test_servers_get_settings_that_exist(name: str, tmp_path: Path) -> None:
    """The environment of a server is a configuration that meter takes, with secrets from files."""
    told = compose.environment(SERVICES[name])
    known = {f"METER_{setting.name.upper()}" for setting in SETTINGS}
    secrets = {variable: value for variable, value in told.items() if value.startswith("/run/secrets/")}
    for variable, value in secrets.items():
        path = tmp_path / Path(value).name
        path.write_text("postgresql://meter@postgres/meter" if "url" in value else Path(value).name * 8)
        told[variable] = str(path)

    found = load(told)

    assert {variable.removesuffix("_FILE") for variable in told} <= known
    assert {Path(value).name for value in secrets.values()} == set(SERVICES[name]["secrets"])
    assert found.workers > 1
    grace = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace > found.shutdown_delay_seconds + found.shutdown_timeout_seconds + 15


def test_each_server_has_a_journal_of_its_own() -> None:
    """No two servers share a data directory."""
    volumes = [compose.mounts(SERVICES[name]) for name in sorted(BUILT)]

    assert volumes == [[("meter-1", "/var/lib/meter")], [("meter-2", "/var/lib/meter")]]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    """Every file and folder that a service is given is in this repository, and every volume is declared."""
    for source, _ in compose.mounts(SERVICES[name]):
        assert (ROOT / source).exists() if source.startswith("./") else source in compose.load()["volumes"]


def test_the_image_is_built_from_little() -> None:
    """Of the repository only what is installed gets to the build, and nothing that is ignored by git."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert {name for names in copied for name in names.split()} == set(allowed)
    assert all((ROOT / name).exists() for name in allowed)


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """Promtool finds nothing wrong; each server is a target, and the token lies where the service has it."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool")
    service = SERVICES["prometheus"]
    (source,) = (source for source, target in compose.mounts(service) if target == "/etc/prometheus")
    folder = shutil.copytree(ROOT / source, tmp_path / "prometheus")
    config = folder / "prometheus.yml"
    document = yaml.safe_load(config.read_text())
    (job,) = document["scrape_configs"]
    token = f"/run/secrets/{service['secrets'][0]['target']}"
    assert job["authorization"]["credentials_file"] == token
    assert job["static_configs"][0]["targets"] == [f"{name}:8081" for name in sorted(BUILT)]
    (tmp_path / "token").write_text("t")
    config.write_text(config.read_text().replace(token, str(tmp_path / "token")))

    done = subprocess.run([promtool, "check", "config", config], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_what_is_provisioned() -> None:
    """Dashboards and sources are read from where the service has them, with variables that it has."""
    service = SERVICES["grafana"]
    folders = {target: ROOT / source for source, target in compose.mounts(service)}
    provisioning = folders["/etc/grafana/provisioning"]
    (providers,) = (provisioning / "dashboards").glob("*.yaml")
    (sources,) = (provisioning / "datasources").glob("*.yaml")

    for provider in yaml.safe_load(providers.read_text())["providers"]:
        assert list(folders[provider["options"]["path"]].glob("*.json"))
    variables = set(re.findall(r"\$\{(\w+)\}", sources.read_text()))
    given = {*compose.environment(service), *re.findall(r"(\w+)=\$\$\(cat", service["entrypoint"][-1])}
    assert variables <= given
