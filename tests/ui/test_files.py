"""The page as files: nothing of another host in them, a policy that lets nothing in, open without a key, off where control is."""

import json
import re
from pathlib import Path

import pytest

import vllama.api
from tests.api.caches import CHAT
from vllama.api import page

FOLDER = Path(vllama.api.__file__).parent / "ui"
FILES = sorted(FOLDER.iterdir())


def test_no_file_names_another_host_or_makes_markup_of_text() -> None:
    for file in FILES:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z0-9]+\.[a-z]", text), file.name
        if file.suffix == ".js":
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", text
            ), file
            assert len(text.splitlines()) < 400, file.name
        if file.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\bstyle=|<style", text), file.name


def test_every_module_that_is_imported_is_served() -> None:
    served = {route.path for route in page.routes()}
    for file in FOLDER.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', file.read_text(encoding="utf-8")):
            assert f"/ui/{name}" in served, f"{file.name} imports {name}"


def test_a_file_has_its_type_its_policy_and_its_tag(rig) -> None:
    answer = rig.http.get("/ui").raise_for_status()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    script = rig.http.get("/ui/main.js").raise_for_status()
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    again = rig.http.get("/ui/main.js", headers={"If-None-Match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("/ui/off.html", "/ui/nothing.js", "/ui/..%2fpage.py", "/ui//main.js"):
        assert rig.http.get(path).status_code == 404, path
    assert rig.http.post("/ui").status_code == 405
    slash = rig.http.get("/ui/")
    assert (slash.status_code, slash.headers["location"]) == (307, "/ui")
    assert rig.http.post("/ui/").status_code == 405


def test_the_page_loads_without_a_key_and_what_it_shows_does_not(make_rig) -> None:
    rig = make_rig(env={"VLLAMA_CONTROL_KEY": "control", "VLLAMA_API_KEY": "data"})
    assert rig.http.get("/ui").status_code == 200
    assert rig.http.get("/ui/main.js").status_code == 200
    assert rig.http.get("/ui/").status_code == 307
    for key, status in ((None, 401), ("data", 401), ("control", 200)):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        assert rig.http.get("/control/history", headers=headers).status_code == status


def test_beyond_loopback_without_a_key_the_page_says_that_it_is_off(make_rig) -> None:
    rig = make_rig(args=("--host", "0.0.0.0"))
    answer = rig.http.get("/ui")
    assert answer.status_code == 403
    assert "VLLAMA_API_KEY" in answer.text
    assert rig.http.get("/ui/main.js").status_code == 403
    assert (rig.http.get("/ui/").status_code, rig.http.get("/ui/").text) == (403, answer.text)


def test_a_history_is_a_state_and_the_records_that_lead_to_now(rig) -> None:
    rig.chat(CHAT).raise_for_status()
    whole = rig.http.get("/control/history?records=5000").raise_for_status().json()
    assert whole["base"]["instances"] == []
    assert [record["seq"] for record in whole["records"]] == list(range(1, whole["seq"] + 1))
    assert any(record["words"] == "is awake" for record in whole["records"])
    last = rig.http.get("/control/history?records=0").raise_for_status().json()
    assert last["server"] == whole["server"]
    assert last["records"] == []
    (instance,) = last["base"]["instances"]
    assert (instance["model"], instance["phase"], instance["serving"]) == (CHAT, "awake", [])
    (lease,) = last["base"]["leases"]
    assert (lease["model"], lease["state"], lease["devices"]) == (CHAT, "held", ["cpu"])
    few = rig.http.get("/control/history?records=7").raise_for_status().json()
    assert [record["seq"] for record in few["records"]] == list(range(few["seq"] - 6, few["seq"] + 1))


@pytest.mark.parametrize("given", ["x", "-1", "5001", "", "9" * 30])
def test_a_number_of_records_that_is_none_is_refused(rig, given: str) -> None:
    answer = rig.http.get(f"/control/history?records={given}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


def test_the_stream_says_things_in_words_when_it_is_asked_to(rig) -> None:
    rig.chat(CHAT).raise_for_status()

    def data(query: str) -> list[dict]:
        text = (
            rig.http.get(f"/debug/events?since=0&follow=0&kind=PhaseChanged{query}").raise_for_status().text
        )
        return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]

    assert "words" not in data("")[0]
    assert [one["words"] for one in data("&words=1")][-1] == "is awake"
    assert rig.http.get("/debug/events?words=2&follow=0").status_code == 400


def test_the_engines_in_flight_are_told_of_when_a_page_opens_late(rig) -> None:
    rig.chat(CHAT).raise_for_status()
    with rig.stream(CHAT, gate="open") as (_, lines):
        next(lines)
        (instance,) = rig.http.get("/control/history?records=0").json()["base"]["instances"]
        assert len(instance["serving"]) == 1
        rig.let(CHAT, "open")
        list(lines)


def test_a_browser_at_the_root_is_led_to_the_page_and_nobody_else(rig) -> None:
    browsers = rig.http.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (browsers.status_code, browsers.headers["location"]) == (307, "/ui")
    assert rig.http.get("/").text == "Ollama is running"


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_browser_at_the_root_of_a_server_with_a_key_is_led_to_the_page_which_asks_for_it(make_rig) -> None:
    rig = make_rig(env={"VLLAMA_API_KEY": "data"})
    led = rig.http.get("/", headers=BROWSER)
    assert (led.status_code, led.headers["location"], led.headers["vary"]) == (307, "/ui", "Accept")
    assert rig.http.get("/", headers=BROWSER, follow_redirects=True).status_code == 200
    assert rig.http.head("/", headers=BROWSER).status_code == 307
    for answer in (
        rig.http.get("/"),  # a client gets what every route gives it without a key
        rig.http.get("/", headers={"Accept": "application/json"}),
        rig.http.post("/", headers=BROWSER),
        rig.http.get("/api/tags", headers=BROWSER),
    ):
        assert answer.status_code == 401, answer.request
    opened = rig.http.get("/", headers={"Authorization": "Bearer data"})
    assert (opened.text, opened.headers["vary"]) == ("Ollama is running", "Accept")


def test_a_browser_at_the_root_of_a_server_whose_page_is_off_is_told_so(make_rig) -> None:
    rig = make_rig(args=("--host", "0.0.0.0"))
    answer = rig.http.get("/", headers=BROWSER, follow_redirects=True)
    assert (answer.status_code, "VLLAMA_API_KEY" in answer.text) == (403, True)
