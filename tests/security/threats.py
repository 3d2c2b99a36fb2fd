"""The threats to meter, and which tests show that it withstands each: `make security` runs them.

A threat has tests, or `docs/security.md` says why it is none of meter's. That page has the same rows in
words; `test_threats.py` compares the two, and looks whether every test that is named exists.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 3600


class Threat(NamedTuple):
    """A row: what somebody tries, and where it is shown that it leads to nothing."""

    number: int
    what: str
    tests: tuple[str, ...] = ()
    """Each a file below `tests`, and a function in it."""

    @property
    def name(self) -> str:
        """The row's name."""
        return f"T{self.number}"


class Result(NamedTuple):
    """What came of one test function, with all its rows."""

    passed: int = 0
    failed: int = 0
    reasons: tuple[str, ...] = ()
    """Why rows were skipped."""

    @property
    def bad(self) -> bool:
        """Whether it shows nothing: it failed, was not run, or was skipped without saying why."""
        explained = bool(self.reasons) and all(self.reasons)
        return bool(self.failed) or not (self.passed or explained)

    def __str__(self) -> str:
        """Write it for the table."""
        if self.failed:
            return f"FAILED ({self.failed} of {self.failed + self.passed})"
        if self.passed:
            return f"passed ({self.passed})"
        return f"skipped: {self.reasons[0]}" if self.reasons else "MISSING"


THREATS: tuple[Threat, ...] = (
    Threat(
        1,
        "whoever gets the database or a backup has no key",
        (
            "store/test_keys.py::test_no_secret_is_stored",
            "core/test_keys.py::test_a_digest_is_an_hmac_under_the_pepper",
            "store/test_installation.py::test_the_pepper_itself_is_not_stored",
            "security/test_credentials.py::test_no_file_of_a_server_has_a_secret",
        ),
    ),
    Threat(
        2,
        "checking keys keeps the server busy",
        ("security/test_credentials.py::test_a_check_costs_microseconds",),
    ),
    Threat(
        3,
        "the time of a refusal tells how much of a key is right",
        (
            "proxy/test_refusals.py::test_every_bad_credential_gets_the_same_answer",
            "security/test_credentials.py::test_how_long_it_takes_tells_nothing",
        ),
    ),
    Threat(
        4,
        "SQL in credentials, parameters, paths and names",
        (
            "security/test_injection.py::test_no_parameter_is_a_part_of_a_statement",
            "security/test_injection.py::test_no_path_is_a_part_of_a_statement",
            "security/test_injection.py::test_no_name_is_a_part_of_a_statement",
            "security/test_injection.py::test_no_credential_is_a_part_of_a_statement",
            "security/test_injection.py::test_no_key_is_a_part_of_a_statement",
        ),
    ),
    Threat(
        5,
        "keys that begin alike are taken for each other",
        (
            "security/test_credentials.py::test_keys_that_begin_alike_are_not_alike",
            "store/test_keys.py::test_nothing_else_grants",
        ),
    ),
    Threat(
        6,
        "a revoked key goes on working",
        (
            "proxy/test_gate.py::test_a_revocation_works_within_the_bound",
            "web/test_control.py::test_a_revoked_key_stops_working_within_seconds",
            "web/test_askers.py::test_a_revoked_token_ends_within_five_seconds",
            "web/test_page.py::test_a_session_of_a_revoked_token_is_over",
        ),
    ),
    Threat(
        7,
        "a Host or a target that routes one way and is checked another",
        (
            "security/test_paths.py::test_a_host_decides_nothing",
            "security/test_paths.py::test_what_else_is_in_a_target_leads_nowhere",
            "security/test_control_listener.py::test_another_name_is_not_this_listeners",
            "security/test_control_listener.py::test_a_target_decides_alone",
            "web/test_control.py::test_another_host_is_refused",
        ),
    ),
    Threat(
        8,
        "an admin API that is open, or has a known token",
        (
            "web/test_control.py::test_every_route_asks_for_the_token",
            "web/test_control.py::test_every_documented_route_asks_for_the_token",
            "security/test_control_listener.py::test_nothing_listens_to_others_unless_told_so",
            "security/test_control_listener.py::test_a_guessable_token_is_no_token",
            "security/test_admin_token_length.py::test_a_short_admin_token_in_the_data_directory_is_refused",
            "security/test_admin_token_length.py::test_the_token_that_is_made_is_long",
        ),
    ),
    Threat(
        9,
        "more rights by a member of a body, or by another role's route",
        (
            "web/test_access.py::test_the_table_has_every_route",
            "web/test_access.py::test_every_role_gets_what_the_table_says",
            "web/test_access.py::test_a_route_that_declares_nothing_is_for_nobody",
            "web/test_document.py::test_bodies_take_no_other_members",
        ),
    ),
    Threat(
        10,
        "a secret of one purpose is good for another",
        (
            "core/test_subkeys.py::test_every_purpose_has_its_own",
            "web/test_page.py::test_the_keys_of_sessions_are_their_own",
            "store/test_tokens.py::test_keys_and_tokens_are_never_each_other",
            "web/test_control.py::test_a_clients_key_is_no_admin_token",
        ),
    ),
    Threat(
        11,
        "a request makes meter connect to where its sender likes",
        (
            "security/test_ssrf.py::test_the_canary_notices_visitors",
            "security/test_ssrf.py::test_no_header_names_another_upstream",
            "security/test_ssrf.py::test_no_member_names_another_upstream",
            "security/test_ssrf.py::test_no_target_names_another_upstream",
        ),
    ),
    Threat(
        12,
        "an upstream's redirect, or a base URL with something in it, leads inside",
        (
            "security/test_ssrf.py::test_a_redirect_is_an_answer",
            "test_settings.py::test_what_is_no_base_url",
            "app/test_alerting.py::test_nothing_is_said_after_a_redirect",
        ),
    ),
    Threat(
        13,
        "proxies and credentials of the environment get into requests",
        ("security/test_ssrf.py::test_the_environment_has_no_say",),
    ),
    Threat(
        14,
        "a client's Connection header takes headers of meter's away",
        (
            "security/test_headers.py::test_a_client_takes_no_header_of_meters_away",
            "security/test_headers.py::test_headers_of_one_hop_stay_there",
        ),
    ),
    Threat(
        15,
        "request smuggling",
        (
            "security/test_smuggling.py::test_nothing_hides_in_a_request",
            "security/test_smuggling.py::test_the_control_listener_is_as_strict",
            "security/test_smuggling.py::test_trailers_are_no_headers",
            "security/test_smuggling.py::test_trailers_are_no_headers_of_the_control_listener",
            "proxy/test_transport.py::test_requests_not_sent",
            "proxy/test_transport.py::test_no_answer",
        ),
    ),
    Threat(
        16,
        "headers that split a request or a response",
        (
            "security/test_headers.py::test_headers_of_an_upstream_split_nothing",
            "security/test_headers.py::test_a_client_splits_no_request",
        ),
    ),
    Threat(
        17,
        "one packet ends a worker",
        (
            "security/test_methods.py::test_nothing_is_upgraded",
            "security/test_methods.py::test_a_thousand_offers_at_once",
            "test_supervisor.py::test_a_killed_child_is_replaced",
        ),
    ),
    Threat(
        18,
        "a client's credential goes upstream, or the provider's comes down",
        (
            "security/test_headers.py::test_no_credential_of_a_client_goes_upstream",
            "security/test_headers.py::test_the_same_credential_twice_is_one",
            "security/test_headers.py::test_the_providers_key_reaches_no_client",
            "proxy/test_identity.py::test_the_request_is_the_clients",
        ),
    ),
    Threat(
        19,
        "a key in an odd place, or two of them",
        (
            "security/test_headers.py::test_a_key_counts_in_one_place_only",
            "proxy/test_refusals.py::test_two_credentials_are_refused",
            "proxy/test_refusals.py::test_a_key_in_the_url_is_refused",
            "proxy/test_gate.py::test_the_credential_of_a_request",
            "web/test_control.py::test_two_credentials_are_none",
        ),
    ),
    Threat(
        20,
        "cookies of one tenant reach another",
        ("security/test_headers.py::test_cookies_of_one_tenant_are_not_anothers",),
    ),
    Threat(
        21,
        "keys or prompts in logs, errors, metrics and files",
        (
            "security/test_credentials.py::test_no_file_of_a_server_has_a_secret",
            "logs/test_lines.py::test_secrets_are_left_out",
            "logs/test_serving.py::test_requests_are_logged_when_asked_for",
            "core/test_request.py::test_a_refusal_quotes_nothing_of_the_body",
            "faults/test_canaries.py::test_the_search_finds_what_is_there",
            "faults/test_canaries.py::test_an_error_that_repeats_the_prompt_is_noticed",
        ),
    ),
    Threat(
        22,
        "a value that makes a line of the log, or moves a terminal's cursor",
        (
            "security/test_control_listener.py::test_a_name_of_a_model_makes_no_line_of_the_log",
            "logs/test_lines.py::test_no_value_makes_a_line_of_its_own",
            "cli/test_commands.py::test_a_name_does_nothing_to_a_terminal",
        ),
    ),
    Threat(
        23,
        "bodies without end",
        (
            "proxy/test_refusals.py::test_a_body_that_grows_past_the_limit_is_refused",
            "proxy/test_refusals.py::test_a_body_that_cannot_be_metered_is_refused",
            "security/test_admin_bodies.py::test_a_body_over_the_limit_gets_413",
            "security/test_held_bytes.py::test_bodies_beyond_the_limit_get_503",
            "security/test_held_bytes.py::test_memory_stays_below_the_limit",
        ),
    ),
    Threat(
        24,
        "a compressed request that explodes, or hides from the parser",
        (
            "security/test_bodies.py::test_a_coded_body_is_not_unpacked",
            "proxy/test_refusals.py::test_a_compressed_request_is_refused",
        ),
    ),
    Threat(
        25,
        "a compressed response that explodes",
        (
            "security/test_bodies.py::test_a_bomb_of_an_upstream_passes_unexploded",
            "core/test_tap.py::test_a_gzip_bomb_costs_no_memory",
            "core/test_tap.py::test_a_train_of_empty_gzip_members_is_stopped",
            "core/test_inflate.py::test_a_bomb_is_stopped",
        ),
    ),
    Threat(
        26,
        "JSON that is deep, long or ambiguous",
        (
            "security/test_bodies.py::test_what_could_be_read_otherwise_is_refused",
            "security/test_bodies.py::test_what_everybody_reads_alike_passes_as_it_came",
            "security/test_bodies.py::test_a_bomb_takes_little_time",
            "core/test_tap.py::test_deep_nesting_is_no_crash",
        ),
    ),
    Threat(
        27,
        "clients that send slowly",
        (
            "security/test_header_limits.py::test_slow_headers_get_408",
            "security/test_slow_bodies.py::test_a_silent_body_gets_408",
            "security/test_slow_bodies.py::test_a_trickling_body_gets_408_in_the_end",
            "security/test_slow_bodies.py::test_a_body_without_a_key_is_not_waited_for",
        ),
    ),
    Threat(
        28,
        "clients that read slowly",
        ("security/test_stalled_clients.py::test_a_client_that_stops_reading_is_cut_off",),
    ),
    Threat(
        29,
        "connections without end",
        (
            "security/test_connections_max.py::test_connections_beyond_the_limit_get_503",
            "security/test_connections_max.py::test_a_flood_of_connections_is_closed_on",
            "security/test_requests_max.py::test_requests_beyond_the_limit_get_503",
            "security/test_requests_max.py::test_every_end_gives_its_place_back",
            "security/test_header_limits.py::test_connections_that_ask_for_nothing_are_closed",
            "security/test_descriptors.py::test_running_out_of_descriptors_ends_nothing",
        ),
    ),
    Threat(
        30,
        "paths that climb, or are a route only at the second look",
        (
            "security/test_paths.py::test_a_path_is_a_route_or_nothing",
            "proxy/test_refusals.py::test_any_other_path_is_not_found",
        ),
    ),
    Threat(
        31,
        "other methods, overridden ones, and other protocols",
        (
            "security/test_methods.py::test_a_method_is_a_routes_or_nothing",
            "security/test_methods.py::test_no_header_is_a_method_or_a_path",
            "security/test_methods.py::test_nothing_is_upgraded",
            "web/test_access.py::test_options_is_no_method_of_any_route",
        ),
    ),
    Threat(
        32,
        "pipelined requests mix their answers, or dodge a limit",
        (
            "security/test_smuggling.py::test_a_hundred_in_one_write",
            "proxy/test_concurrency.py::test_a_key_has_so_many_places",
        ),
    ),
    Threat(
        33,
        "a made-up address of a client",
        ("security/test_control_listener.py::test_a_client_is_no_other_by_saying_so",),
    ),
    Threat(
        34,
        "pages of other origins read answers",
        ("security/test_control_listener.py::test_no_other_origin_reads_an_answer",),
    ),
    Threat(
        35,
        "pages of other sites act for whoever is signed in",
        (
            "security/test_control_listener.py::test_a_form_of_another_site_does_nothing",
            "web/test_page.py::test_another_sites_form_is_refused",
            "web/test_page.py::test_a_form_without_its_token_is_refused",
            "web/test_page.py::test_the_cookie_has_every_guard",
            "web/test_access.py::test_a_session_opens_nothing_of_the_api",
        ),
    ),
    Threat(
        36,
        "a name that is a script",
        (
            "web/test_page.py::test_a_hostile_name_is_text",
            "web/test_page.py::test_pages_hold_nothing_that_the_policy_forbids",
            "web/test_page.py::test_every_page_has_its_headers",
            "web/test_browser.py::test_a_hostile_name_is_text",
        ),
    ),
    Threat(
        37,
        "a name that is a formula",
        (
            "core/test_cells.py::test_no_text_is_a_formula",
            "web/test_reports.py::test_no_name_is_a_formula_and_numbers_are_numbers",
            "cli/test_commands.py::test_a_cell_is_never_a_formula",
        ),
    ),
    Threat(
        38,
        "names of clients fill the metrics",
        (
            "metrics/test_page.py::test_nothing_that_clients_make_up_makes_series",
            "metrics/test_instruments.py::test_made_up_models_make_no_series",
            "metrics/test_instruments.py::test_any_name_renders_and_reads",
        ),
    ),
    Threat(
        39,
        "metrics, health and descriptions tell strangers something",
        (
            "web/test_control.py::test_the_data_listener_has_none_of_this",
            "security/test_control_listener.py::test_the_data_listener_tells_nothing_of_itself",
            "web/test_access.py::test_what_is_open_tells_nothing",
        ),
    ),
    Threat(
        40,
        "a request that was listened to is sent again",
        ("proxy/test_refusals.py::test_an_expired_key_is_refused",),
    ),
    Threat(
        41,
        "guessing keys",
        (
            "core/test_keys.py::test_a_secret_carries_256_bits",
            "security/test_guessing.py::test_guessing_ends_and_known_keys_go_on",
            "security/test_guessing.py::test_guessing_tokens_ends_and_the_owner_goes_on",
            "proxy/test_gate.py::test_wrong_keys_are_remembered_too",
            "web/test_askers.py::test_wrong_tokens_are_remembered_too_in_a_bounded_table",
        ),
    ),
    Threat(
        42,
        "a package that is not what it was",
        (
            "security/test_supply_chain.py::test_everything_is_pinned_and_hashed",
            "security/test_supply_chain.py::test_everything_is_installed_by_its_hash",
            "security/test_supply_chain.py::test_nothing_runs_at_every_start",
            "security/test_supply_chain.py::test_two_builds_are_the_same",
            "deploy/test_compose.py::test_images_are_pinned",
            "deploy/test_compose.py::test_containers_may_do_little",
        ),
    ),
    Threat(
        43,
        "another user of the machine",
        (
            "security/test_credentials.py::test_files_of_a_server_are_its_owners_alone",
            "security/test_credentials.py::test_no_secret_is_in_the_command_line",
            "test_datadir.py::test_the_mode_does_not_depend_on_the_umask",
            "test_datadir.py::test_a_secret_is_not_written_through_a_link",
            "journal/test_quarantine.py::test_only_the_owner_reads_it",
        ),
    ),
    Threat(
        44,
        "an upstream that lies about usage, or never ends",
        (
            "proxy/test_outcomes.py::test_odd_usage",
            "proxy/test_outcomes.py::test_events_of_ten_megabytes",
            "security/test_long_answers.py::test_a_stream_that_takes_too_long_is_cut",
            "security/test_long_answers.py::test_an_answer_that_is_too_large_is_cut",
            "security/test_long_answers.py::test_headers_of_an_answer_are_bounded",
            "core/test_tap.py::test_no_usage_makes_counts_negative_or_unstorable",
            "core/test_tap.py::test_cumulative_usage_is_never_added_up",
            "proxy/test_transport.py::test_no_answer",
            "store/test_ledger.py::test_numbers_that_an_upstream_makes_up_stop_nothing",
        ),
    ),
    Threat(
        45,
        "one team reads another's reports, events and exports",
        (
            "web/test_access.py::test_another_teams_things_do_not_exist",
            "web/test_access.py::test_a_teams_viewer_sees_its_own_team",
            "web/test_reports.py::test_a_teams_viewer_gets_its_own_team",
            "web/test_page.py::test_a_teams_viewer_sees_its_team_alone",
            "proxy/test_rates.py::test_the_view_is_for_its_key_alone",
        ),
    ),
)


def node(test: str) -> str:
    """Return the name by which pytest knows a test."""
    return f"tests/{test}"


def run(tests: Iterable[str], jobs: int) -> dict[str, Result]:
    """Run tests in a process of their own, and return what came of each function."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), f"--junitxml={report}"]
        command += sorted({node(test) for test in tests})
        subprocess.run(
            command, cwd=ROOT, env=os.environ | {"METER_TEST_TIMING": "1"}, timeout=SECONDS_MAX, check=False
        )
        return read(report.read_text(encoding="utf-8")) if report.exists() else {}


def read(report: str) -> dict[str, Result]:
    """Read pytest's report: all rows of a function are one result."""
    found: dict[str, Result] = {}
    for case in ET.fromstring(report).iter("testcase"):  # noqa: S314 (pytest wrote it)
        path = case.get("classname", "").removeprefix("tests.").replace(".", "/")
        test = f"{path}.py::{case.get('name', '').partition('[')[0]}"
        before = found.get(test, Result())
        skipped = case.find("skipped")
        if skipped is not None:
            found[test] = before._replace(reasons=(*before.reasons, skipped.get("message", "")))
        elif case.find("failure") is not None or case.find("error") is not None:
            found[test] = before._replace(failed=before.failed + 1)
        else:
            found[test] = before._replace(passed=before.passed + 1)
    return found


def lines(results: Mapping[str, Result]) -> list[str]:
    """Write the table: a threat, and below it each of its tests with what came of it."""
    table = []
    for threat in THREATS:
        table.append(f"{threat.name:4} {threat.what}")
        table += [f"       {results.get(test, Result())!s:14}  {test}" for test in threat.tests]
        if not threat.tests:
            table.append("       none of meter's: see docs/security.md")
    return table


def main() -> int:
    """Run what is asked for, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.security.threats", description="The threats.")
    parser.add_argument("--jobs", type=int, default=2, help="So many tests at once.")
    parser.add_argument("--only", default="", help="Names, with commas: T3,T15.")
    arguments = parser.parse_args()
    names = set(filter(None, arguments.only.upper().split(",")))
    asked = [test for threat in THREATS if not names or threat.name in names for test in threat.tests]
    results = run(asked, arguments.jobs)
    bad = sorted({test for test in asked if results.get(test, Result()).bad})
    sys.stdout.write("\n".join(lines(results)) + "\n")
    sys.stdout.write(f"{len(THREATS)} threats, {len(set(asked))} tests, {len(bad)} of them show nothing\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
