"""The configuration: options over environment over file over default, and all faults at once."""

from pathlib import Path

import pytest

from meter.settings import (
    DEFAULT_UPSTREAM_URL,
    SETTINGS,
    ConfigurationError,
    Secret,
    Settings,
    check_upstream_url,
    is_loopback,
    load,
)

LONG_SECRET = "s3cr3t-" * 8


def write(tmp_path: Path, text: str) -> Path:
    """Write a configuration file."""
    path = tmp_path / "meter.toml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(environment: dict[str, str], config: Path | None = None, **options: object) -> list[str]:
    """Return what is wrong with a configuration."""
    with pytest.raises(ConfigurationError) as caught:
        load(environment, config, **options)
    return caught.value.faults


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a directory that has no `meter.toml` but the test's own."""
    monkeypatch.chdir(tmp_path)


def test_nothing_needs_to_be_configured(tmp_path: Path) -> None:
    """Without any configuration there is SQLite in the data directory, on loopback, and no upstream."""
    settings = load({})

    assert settings.data_dir == tmp_path / "meter-data"
    assert settings.database_url.reveal() == f"sqlite:///{tmp_path / 'meter-data' / 'meter.db'}"
    assert settings.sqlite_path == tmp_path / "meter-data" / "meter.db"
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert (settings.admin_host, settings.admin_port) == ("127.0.0.1", 8081)
    assert settings.stream_usage == "ensure"
    assert settings.hangup_grace_seconds == 5
    assert settings.body_bytes_max == 20_000_000
    assert (settings.admin_token, settings.pepper) == (None, None)
    assert settings.upstreams == ()


def test_every_setting_has_a_row_and_a_help() -> None:
    """Every member of the settings is a row that says what it is for, with a default that can be used."""
    names = [setting.name for setting in SETTINGS]

    assert len(set(names)) == len(names)
    assert set(Settings.__struct_fields__) - {"upstreams"} == set(names) - {
        "upstream_url",
        "upstream_api_key",
    }
    assert all(setting.help.endswith(".") for setting in SETTINGS)


def test_the_environment_goes_before_the_file_before_the_default(tmp_path: Path) -> None:
    """Each setting takes the first place that says something."""
    config = write(tmp_path, 'port = 1001\nadmin_port = 1002\nhost = "127.0.0.3"\n')

    settings = load({"METER_PORT": "2001", "METER_HOST": ""}, config)

    assert settings.port == 2001
    assert settings.admin_port == 1002
    assert settings.host == "127.0.0.3"
    assert settings.admin_host == "127.0.0.1"


def test_options_go_before_everything(tmp_path: Path) -> None:
    """What the command line says wins, and what it does not say is left alone."""
    config = write(tmp_path, "port = 1001\n")

    settings = load({"METER_PORT": "2001", "METER_ADMIN_PORT": "2002"}, config, port="3001", admin_port=None)

    assert (settings.port, settings.admin_port) == (3001, 2002)


@pytest.mark.parametrize("how", ["here", "environment", "argument"])
def test_where_the_file_is(tmp_path: Path, how: str) -> None:
    """The file is `meter.toml` here, or what METER_CONFIG or an option names."""
    path = write(tmp_path, "port = 1001\n")
    named = path.rename(tmp_path / "other.toml") if how != "here" else path
    environment = {"METER_CONFIG": str(named)} if how == "environment" else {}

    settings = load(environment, named if how == "argument" else None)

    assert settings.port == 1001


@pytest.mark.parametrize("how", ["environment", "argument"])
def test_a_file_that_is_named_must_be_there(tmp_path: Path, how: str) -> None:
    """Only the file that nobody named may be missing."""
    missing = tmp_path / "missing.toml"
    environment = {"METER_CONFIG": str(missing)} if how == "environment" else {}

    (fault,) = faults(environment, missing if how == "argument" else None)

    assert str(missing) in fault


@pytest.mark.parametrize("text", ["port = \n", "[[", "port = 1\nport = 2\n", "a = '\xff"])
def test_a_file_must_be_toml(tmp_path: Path, text: str) -> None:
    """A file that is no TOML is a fault, and not silently left out."""
    config = tmp_path / "meter.toml"
    config.write_bytes(text.encode("latin-1"))

    (fault,) = faults({}, config)

    assert "not valid TOML" in fault


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("METER_PORT", "x"),
        ("METER_PORT", "-1"),
        ("METER_PORT", "65536"),
        ("METER_PORT", "80.5"),
        ("METER_ADMIN_PORT", "http"),
        ("METER_STREAM_USAGE", "always"),
        ("METER_STREAM_USAGE", "Ensure"),
        ("METER_HANGUP_GRACE_SECONDS", "-1"),
        ("METER_HANGUP_GRACE_SECONDS", "inf"),
        ("METER_HANGUP_GRACE_SECONDS", "nan"),
        ("METER_HANGUP_GRACE_SECONDS", "soon"),
        ("METER_BODY_BYTES_MAX", "0"),
        ("METER_BODY_BYTES_MAX", "1e9"),
        ("METER_JOURNAL_BYTES_MAX", "0"),
        ("METER_UPSTREAM_URL", "api.example.com/v1"),
        ("METER_UPSTREAM_URL", "ftp://api.example.com"),
        ("METER_UPSTREAM_URL", "http://api.example.com/v1"),
        ("METER_UPSTREAM_URL", "https://api.example.com/v1?key=1"),
        ("METER_ADMIN_TOKEN", "short"),
        ("METER_PEPPER", "short"),
        ("METER_DATABASE_URL", "postgresql://db/meter"),
    ],
)
def test_a_bad_value_is_a_fault_that_names_the_setting(variable: str, value: str) -> None:
    """What cannot be used is refused with the variable's name."""
    named = "METER_PEPPER" if variable == "METER_DATABASE_URL" else variable

    (fault,) = faults({variable: value})

    assert fault.startswith(f"{named}: must")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("METER_DATABASE_URL", "nonsense"),
        ("METER_DATABASE_URL", "mysql://db/meter"),
        ("METER_UPSTREAM_URL", "https://api.example.com:port/v1"),
        ("METER_UPSTREAM_URL", "https://api.example.com:99999/v1"),
    ],
)
def test_a_url_that_nothing_can_use_is_a_fault(variable: str, value: str) -> None:
    """A URL that no driver and no client takes is refused when the configuration is read."""
    found = faults({variable: value, "METER_PEPPER": LONG_SECRET})

    assert [fault for fault in found if fault.startswith(variable)]


@pytest.mark.parametrize("value", ["http://[::1", "https://[half/v1"])
def test_a_broken_url_is_called_a_url(value: str) -> None:
    """A URL that cannot even be taken apart is not called a number."""
    (fault,) = faults({"METER_UPSTREAM_URL": value})

    assert "number" not in fault


def test_a_bad_value_in_the_file_names_its_member(tmp_path: Path) -> None:
    """A fault says whether it stands in the file, in the environment or in the command."""
    config = write(tmp_path, 'port = "x"\n')

    from_file = faults({}, config)
    from_option = faults({}, config, port="y")

    assert from_file == ["meter.toml: port: must be a number, not 'x'"]
    assert from_option == ["--port: must be a number, not 'y'"]


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    """Whoever configures meter is told everything that is wrong in one go."""
    config = write(tmp_path, 'nonsense = 1\nadmin_port = "x"\n[[upstreams]]\nname = "a"\nurl = "nowhere"\n')

    found = faults({"METER_PORT": "y", "METER_UPSTREAM_URL": "http://api.example.com"}, config)

    text = "\n".join(found)
    for named in ("nonsense", "admin_port", "METER_PORT", "METER_UPSTREAM_URL", "upstreams[1]"):
        assert named in text
    assert len(found) == 5


def test_faults_of_secrets_are_reported_with_the_others() -> None:
    """A secret that is too short is reported together with everything else that is wrong."""
    text = "\n".join(faults({"METER_PORT": "y", "METER_PEPPER": "short", "METER_ADMIN_TOKEN": "short"}))

    for named in ("METER_PORT", "METER_PEPPER", "METER_ADMIN_TOKEN"):
        assert named in text


def test_an_unknown_member_of_the_file_is_a_fault(tmp_path: Path) -> None:
    """A misspelt setting is not silently the default."""
    config = write(tmp_path, "prot = 1001\n[serve]\nport = 1\n")

    text = "\n".join(faults({}, config))

    assert "'prot'" in text
    assert "'serve'" in text


def test_limits_are_whole_numbers(tmp_path: Path) -> None:
    """0 and nothing are no limit, from the environment and the file."""
    config = write(tmp_path, "key_rpm = 60\nteam_tpm = 0\n")

    settings = load({"METER_KEY_CONCURRENCY": "4", "METER_KEY_TPM": ""}, config)

    assert (settings.key_rpm, settings.key_tpm, settings.key_concurrency) == (60, 0, 4)
    assert (settings.team_rpm, settings.team_tpm, settings.redis_url) == (0, 0, None)
    assert "METER_TEAM_RPM: must be a whole number" in faults({"METER_TEAM_RPM": "-1"})[0]


@pytest.mark.parametrize(
    "url",
    ["localhost:6379", "http://localhost", "redis://", "redis:///0", "redis://host:port", "redis://[::"],
)
def test_a_redis_is_named_by_its_url(url: str) -> None:
    """The fault says what one looks like, and never repeats the value, which may hold a password."""
    (found,) = faults({"METER_REDIS_URL": url})

    assert found == "METER_REDIS_URL: must be a URL such as redis://host:6379/0, or rediss:// for TLS"


def test_the_url_of_a_redis_is_not_shown() -> None:
    """It may hold a password."""
    settings = load({"METER_REDIS_URL": "rediss://user:hunter2@redis.example:6380/1"})

    assert settings.redis_url is not None
    assert settings.redis_url.reveal() == "rediss://user:hunter2@redis.example:6380/1"
    assert "hunter2" not in repr(settings)


def test_a_list_in_the_file_is_a_list(tmp_path: Path) -> None:
    """What is a list of names can be written as TOML's list."""
    config = write(tmp_path, 'admin_hosts = ["a.example", "b.example"]\n')

    assert load({}, config).admin_hosts == ("a.example", "b.example")


def test_names_are_separated_by_commas() -> None:
    """In the environment, names are separated by commas."""
    assert load({"METER_ADMIN_HOSTS": " a.example, b.example,"}).admin_hosts == ("a.example", "b.example")


UPSTREAMS = """
upstream_api_key = "sk-fallback"
[[upstreams]]
name = "openai"
url = "https://api.openai.com/v1/"
models = ["gpt-*", "o?"]
api_key_env = "OPENAI_API_KEY"
stream_usage = "observe"

[[upstreams]]
name = "local"
url = "http://127.0.0.1:8000/v1"
models = ["llama"]
"""


def test_upstreams_from_the_file(tmp_path: Path) -> None:
    """Upstreams keep their order, the default one comes last, and their keys are in the environment."""
    config = write(tmp_path, UPSTREAMS)

    settings = load({"OPENAI_API_KEY": "sk-openai"}, config)

    openai, local, fallback = settings.upstreams
    assert (openai.name, openai.url) == ("openai", "https://api.openai.com/v1")
    assert (openai.models, openai.stream_usage) == (("gpt-*", "o?"), "observe")
    assert openai.api_key is not None
    assert openai.api_key.reveal() == "sk-openai"
    assert (local.name, local.api_key, local.stream_usage) == ("local", None, None)
    assert (fallback.name, fallback.url, fallback.models) == ("routerhub", DEFAULT_UPSTREAM_URL, ("*",))


@pytest.mark.parametrize(
    ("model", "serves"),
    [("gpt-4.1", True), ("gpt-", True), ("o3", True), ("o3-mini", False), ("GPT-4", False), ("", False)],
)
def test_an_upstream_serves_what_matches_a_pattern(tmp_path: Path, model: str, serves: bool) -> None:
    """Patterns are those of a shell, and upper and lower case differ."""
    settings = load({"OPENAI_API_KEY": "sk-openai"}, write(tmp_path, UPSTREAMS))

    assert settings.upstreams[0].serves(model) is serves


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ('url = "https://a.example"\nmodels = ["*"]', "name"),
        ('name = "a"\nmodels = ["*"]', "url"),
        ('name = "a"\nurl = "https://a.example"', "models"),
        ('name = "a"\nurl = "https://a.example"\nmodels = "*"', "models"),
        ('name = "a"\nurl = "https://a.example"\nmodels = ["*"]\napi_key = "sk-1"', "api_key"),
        ('name = "a"\nurl = "http://a.example"\nmodels = ["*"]', "https"),
        ('name = "a"\nurl = "https://a.example"\nmodels = ["*"]\napi_key_env = "A_KEY"', "A_KEY"),
        ('name = "a"\nurl = "https://a.example"\nmodels = ["*"]\nstream_usage = "x"', "must be one of"),
    ],
)
def test_a_bad_upstream_is_a_fault(tmp_path: Path, entry: str, fault: str) -> None:
    """What is wrong with an entry is said with the entry's number."""
    config = write(tmp_path, f"[[upstreams]]\n{entry}\n")

    (found,) = faults({}, config)

    assert found.startswith("meter.toml: upstreams[1]: ")
    assert fault in found


def test_upstreams_are_a_list(tmp_path: Path) -> None:
    """A single table is not a list of upstreams."""
    (fault,) = faults({}, write(tmp_path, '[upstreams]\nname = "a"\n'))

    assert "[[upstreams]]" in fault


def test_two_upstreams_of_one_name_are_a_fault(tmp_path: Path) -> None:
    """Reports tell upstreams apart by their names."""
    entry = '[[upstreams]]\nname = "routerhub"\nurl = "https://a.example"\nmodels = ["*"]\n'

    (fault,) = faults({"ROUTERHUB_API_KEY": "sk-1"}, write(tmp_path, entry))

    assert "'routerhub'" in fault


@pytest.mark.parametrize("name", ["", "x" * 65, "a\\nb"])
def test_an_upstreams_name_can_be_stored(tmp_path: Path, name: str) -> None:
    """An upstream's name has 1 to 64 printable characters, as its column in the database has."""
    entry = f'[[upstreams]]\nname = "{name}"\nurl = "https://a.example"\nmodels = ["*"]\n'

    assert faults({}, write(tmp_path, entry))


@pytest.mark.parametrize(
    ("environment", "name", "url", "api_key"),
    [
        ({"ROUTERHUB_API_KEY": "sk-rh"}, "routerhub", DEFAULT_UPSTREAM_URL, "sk-rh"),
        ({"METER_UPSTREAM_API_KEY": "sk-m"}, "routerhub", DEFAULT_UPSTREAM_URL, "sk-m"),
        (
            {"METER_UPSTREAM_API_KEY": "sk-m", "ROUTERHUB_API_KEY": "sk-rh"},
            "routerhub",
            DEFAULT_UPSTREAM_URL,
            "sk-m",
        ),
        ({"METER_UPSTREAM_URL": "http://127.0.0.1:8000/v1"}, "127.0.0.1", "http://127.0.0.1:8000/v1", None),
        (
            {"METER_UPSTREAM_URL": "https://a.example/v1", "ROUTERHUB_API_KEY": "sk-rh"},
            "a.example",
            "https://a.example/v1",
            "sk-rh",
        ),
        (
            {"METER_UPSTREAM_URL": "https://a.example/v1/", "METER_UPSTREAM_API_KEY": "sk-a"},
            "a.example",
            "https://a.example/v1",
            "sk-a",
        ),
    ],
)
def test_the_one_upstream_of_the_environment(
    environment: dict[str, str], name: str, url: str, api_key: str | None
) -> None:
    """A key alone means RouterHub, a URL alone a server that wants none; meter's own key goes before."""
    (upstream,) = load(environment).upstreams

    assert (upstream.name, upstream.url) == (name, url)
    assert (upstream.api_key and upstream.api_key.reveal()) == api_key
    assert upstream.serves("any/model")


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("https://api.example.com", "https://api.example.com"),
        ("http://localhost:11434/v1", "http://localhost:11434/v1"),
        ("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1"),
        ("http://127.9.9.9/v1", "http://127.9.9.9/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_a_base_url(url: str, checked: str) -> None:
    """A base URL is HTTPS, or HTTP to this very machine, and ends without a slash."""
    assert check_upstream_url(url) == checked


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "//api.example.com/v1",
        "file:///etc/passwd",
        "https://",
        "http://api.example.com/v1",
        "http://10.0.0.1/v1",
        "http://0.0.0.0/v1",
        "http://localhost.example.com/v1",
        "http://127.0.0.1.example.com/v1",
        "https://user:password@api.example.com/v1",
        "https://user@api.example.com/v1",
        "https://api.example.com/v1?a=b",
        "https://api.example.com/v1#top",
    ],
)
def test_what_is_no_base_url(url: str) -> None:
    """Plain HTTP to another machine, credentials and queries are refused."""
    with pytest.raises(ValueError, match="must"):
        check_upstream_url(url)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104 (compared, not bound)
        ("::", False),
        ("192.168.0.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    """Only addresses that no other machine reaches are loopback."""
    assert is_loopback(host) is loopback


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """Neither the settings nor a secret by itself show a secret when printed or logged."""
    secrets = {
        "METER_ADMIN_TOKEN": f"admin-{LONG_SECRET}",
        "METER_PEPPER": f"pepper-{LONG_SECRET}",
        "METER_UPSTREAM_API_KEY": f"upstream-{LONG_SECRET}",
        "OPENAI_API_KEY": f"openai-{LONG_SECRET}",
    }

    settings = load(secrets, write(tmp_path, UPSTREAMS))

    shown = f"{settings} {settings!r} {settings.upstreams} {settings.pepper} {settings.admin_token!r}"
    assert LONG_SECRET not in shown
    assert settings.pepper is not None
    assert settings.pepper.reveal() == secrets["METER_PEPPER"]


def test_a_secret_shows_nothing() -> None:
    """A secret formats as dots in every way that Python formats."""
    secret = Secret("hidden")

    assert {f"{secret}", f"{secret!r}", str(secret), repr([secret])[1:-1]} == {"Secret(...)"}


def test_the_databases_password_is_not_shown() -> None:
    """A database's URL holds a password, which is as secret as the others."""
    url = f"postgresql+psycopg://meter:{LONG_SECRET}@db/meter"

    settings = load({"METER_DATABASE_URL": url, "METER_PEPPER": LONG_SECRET[::-1]})

    assert LONG_SECRET not in repr(settings)


def test_a_fault_shows_no_password() -> None:
    """A URL is refused for the password in it without repeating the password."""
    text = "\n".join(faults({"METER_UPSTREAM_URL": f"https://user:{LONG_SECRET}@api.example.com/v1"}))

    assert "METER_UPSTREAM_URL" in text
    assert LONG_SECRET not in text


@pytest.mark.parametrize("name", ["METER_PEPPER", "METER_ADMIN_TOKEN"])
def test_secrets_have_a_length(name: str) -> None:
    """A pepper and an admin token have at least 32 characters, and a shorter one is not shown."""
    (fault,) = faults({name: "hunter2" * 4})

    assert name in fault
    assert "hunter2" not in fault
    assert load({name: "x" * 32}).upstreams == ()


def test_other_databases_need_a_pepper() -> None:
    """A database that several servers may share has its pepper from the configuration."""
    url = "postgresql+psycopg://db/meter"

    (fault,) = faults({"METER_DATABASE_URL": url})
    settings = load({"METER_DATABASE_URL": url, "METER_PEPPER": LONG_SECRET})

    assert "METER_PEPPER" in fault
    assert settings.sqlite_path is None


def test_the_data_directory_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data directory means the same place wherever the process goes; `~` is the home directory."""
    monkeypatch.setenv("HOME", "/home/somebody")

    assert load({"METER_DATA_DIR": "data"}).data_dir == tmp_path / "data"
    assert load({"METER_DATA_DIR": "~/data"}).data_dir == Path("/home/somebody/data")


def test_a_setting_from_a_file(tmp_path: Path) -> None:
    """`METER_X_FILE` names the file that holds METER_X, less the end of its line; keys of upstreams too."""
    for name, text in (("pepper", "p" * 32 + "\n"), ("port", "9000"), ("key", "sk-of-upstream\r\n")):
        (tmp_path / name).write_text(text)
    config = tmp_path / "meter.toml"
    config.write_text(
        '[[upstreams]]\nname = "a"\nurl = "https://a.example/v1"\nmodels = ["*"]\napi_key_env = "A_KEY"\n'
    )
    named = {
        "METER_PEPPER_FILE": "pepper",
        "METER_PORT_FILE": "port",
        "A_KEY_FILE": "key",
        "ROUTERHUB_API_KEY_FILE": "key",
    }

    found = load({variable: str(tmp_path / name) for variable, name in named.items()}, config)

    assert found.pepper is not None
    assert (found.pepper.reveal(), found.port) == ("p" * 32, 9000)
    assert [entry.api_key and entry.api_key.reveal() for entry in found.upstreams] == ["sk-of-upstream"] * 2


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """A file that is missing, empty or no text, and a setting given twice, are faults by their names."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    environment = {
        "METER_PEPPER_FILE": str(tmp_path / "missing"),
        "METER_ADMIN_TOKEN_FILE": str(tmp_path / "empty"),
        "METER_WEBHOOK_SECRET_FILE": str(tmp_path / "bytes"),
        "METER_HOST_FILE": str(tmp_path / "empty"),
        "METER_HOST": "127.0.0.1",
    }

    with pytest.raises(ConfigurationError) as refused:
        load(environment)

    assert sorted(fault.split(":")[0] for fault in refused.value.faults) == sorted(
        name for name in environment if name.endswith("_FILE")
    )


def test_all_secrets_are_known() -> None:
    """What no log may show: secrets, keys of upstreams, and the passwords in URLs."""
    found = load(
        {
            "METER_PEPPER": "p" * 32,
            "METER_DATABASE_URL": "postgresql://meter:hunter2@db/meter",
            "ROUTERHUB_API_KEY": "sk-upstream",
        }
    )

    assert {"p" * 32, "hunter2", "sk-upstream", "postgresql://meter:hunter2@db/meter"} == set(found.secrets)
