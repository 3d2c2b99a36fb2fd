"""What stands beside meter in the compose file, run by hand: its commands, its checks, its configuration.

Grafana is not here: there is no package of it that a test could install.
"""

import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from meter.cli.migrations import bring_up_to_date
from meter.store.database import Database
from tests import server, services
from tests.deploy import compose

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
SERVICES = compose.load()["services"]
PASSWORD = "SELECT rolpassword FROM pg_authid WHERE rolname = 'meter_grafana'"


def check(name: str, *more: str) -> int:
    """Run a service's own check of its health, with what says where it is here; returns its status."""
    kind, program, *arguments = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD"
    found = shutil.which(program)
    assert found is not None, f"there is no {program}"
    return subprocess.run([found, *more, *arguments], capture_output=True, timeout=60, check=False).returncode


def test_redis_keeps_rates_and_nothing_else() -> None:
    """It starts with the file's options, is well by the file's check, and forgets the oldest when full."""
    with services.redis_server() as redis:
        redis.start(*SERVICES["redis"]["command"][1:])

        assert check("redis", "-p", str(redis.port)) == 0
        assert b"volatile-ttl" in redis.command("CONFIG GET maxmemory-policy")
        assert b"134217728" in redis.command("CONFIG GET maxmemory")


def test_postgres_has_room_for_the_servers_and_a_role_for_grafana(tmp_path: Path) -> None:
    """It starts with the file's options; the errand beside it makes a role that reads sums and no events."""
    secrets = {name: tmp_path / name for name in ("grafana-database-password", "database-password")}
    secrets["database-password"].write_text("meters-own")
    with services.cluster(start=False) as cluster:
        cluster.start(*SERVICES["postgres"]["command"][1:])
        with psycopg.connect(cluster.url, autocommit=True) as owner:
            owner.execute("CREATE ROLE meter SUPERUSER LOGIN")
            owner.execute("CREATE DATABASE meter OWNER meter")
        parts = urlsplit(cluster.url)
        url = f"postgresql://meter@127.0.0.1:{parts.port}/meter"

        assert check("postgres", f"--port={parts.port}") == 0
        database = Database(url)
        bring_up_to_date(database)
        database.dispose()
        passwords: list[tuple[str]] = []
        for password in ("first", "second"):
            secrets["grafana-database-password"].write_text(password)
            run_errand(url, secrets)
            with psycopg.connect(url) as owner:
                passwords += owner.execute(
                    "SELECT rolpassword FROM pg_authid WHERE rolname = 'meter_grafana'"
                )
                connections = owner.execute("SHOW max_connections").fetchone()

    assert connections == ("200",)
    assert all(password.startswith("SCRAM-SHA-256") for (password,) in passwords)
    assert passwords[0] != passwords[1]


def run_errand(url: str, secrets: dict[str, Path]) -> None:
    """Run the errand of the file, with the folders that it has mounted, and look at what its role may do."""
    service, parts = SERVICES["grafana-role"], urlsplit(url)
    mounted = {target: ROOT / source for source, target in compose.mounts(service)}
    mounted |= {f"/run/secrets/{name}": path for name, path in secrets.items()}
    command = [str(mounted[part]) for part in service["command"]]
    environment = compose.environment(service) | {"PGHOST": "127.0.0.1", "PGPORT": str(parts.port)}
    path = {"PATH": str(services.postgres_programs()) + ":/usr/bin:/bin"}
    done = subprocess.run(command, env=environment | path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with psycopg.connect(url.replace("meter@", "meter_grafana@"), autocommit=True) as role:
        assert role.execute("SELECT count(*) FROM usage_days").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            role.execute("SELECT count(*) FROM usage_events")


def test_prometheus_runs_with_the_files_options(tmp_path: Path) -> None:
    """It starts on the mounted configuration, is ready where the file looks, and knows both targets."""
    service = SERVICES["prometheus"]
    (source,) = (source for source, target in compose.mounts(service) if target == "/etc/prometheus")
    folder = shutil.copytree(ROOT / source, tmp_path / "prometheus")
    token = tmp_path / "token"
    token.write_text("t")
    config = folder / "prometheus.yml"
    told = f"/run/secrets/{service['secrets'][0]['target']}"
    config.write_text(config.read_text().replace(told, str(token)))
    places = {"/etc/prometheus": str(folder), "/prometheus": str(tmp_path / "data")}
    options = [
        f"{name}={places.get(value, value).replace('/etc/prometheus/', f'{folder}/')}"
        for name, value in (option.split("=", 1) for option in service["command"])
    ]
    servers = {f"{name}:8081" for name in SERVICES if name.startswith("meter-")}
    ready = urlsplit(service["healthcheck"]["test"][-1]).path

    with services.prometheus_with(options) as url:
        server.until(lambda: answers(f"{url}{ready}"), "Prometheus to be ready")
        server.until(lambda: targets(url) == servers, "the servers to be targets")
        rules = httpx.get(f"{url}/api/v1/rules", trust_env=False).json()["data"]["groups"]

    assert rules


def targets(url: str) -> set[str]:
    """Return what a Prometheus scrapes."""
    found = httpx.get(f"{url}/api/v1/targets", trust_env=False).json()["data"]["activeTargets"]
    return {target["discoveredLabels"]["__address__"] for target in found}


def answers(url: str) -> bool:
    """Say whether somebody answers there with 200."""
    try:
        return httpx.get(url, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
