"""Keys, hosts and origins over a real server: who may ask for what, and that nobody learns a key from us."""

import json
import subprocess
import sys

import httpx
import pytest

from tests.api.caches import CHAT
from tests.api.rig import error_of
from vllama.api.access import Keys, is_loopback, read_keys
from vllama.cli.address import default_key
from vllama.config import load_config
from vllama.errors import ConfigError

EVERY_GUARDED = (
    "/v1/models",
    f"/v1/models/{CHAT}",
    "/control/ps",
    "/control/info",
    "/debug/events",
    "/debug/journal",
)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def serve(vllama_server, fake_cache):
    """`serve({env}, *args)`: a server and a client of it that sends no key by itself."""
    clients = []

    def make(env: dict[str, str], *args: str):
        server = vllama_server(fake_cache, fake=True, env=env, args=args)
        clients.append(httpx.Client(base_url=server.url, trust_env=False, timeout=30))
        return server, clients[-1]

    yield make
    for client in clients:
        client.close()


def test_a_key_guards_every_route_but_health(serve):
    server, http = serve({"VLLAMA_API_KEY": "first-secret,second-secret"})
    assert http.get("/health").status_code == 200
    for path in EVERY_GUARDED:
        for headers in (
            {},
            bearer("wrong"),
            bearer("first-secre"),
            {"Authorization": "Bearer"},
            {"Authorization": "first-secret"},
        ):
            refused = http.get(path, headers=headers)
            assert (path, headers, refused.status_code) == (path, headers, 401)
            assert error_of(refused)["code"] == "invalid_api_key"
            assert refused.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/chat/completions", "/control/stop", "/nothing", "/control/nothing"):
        assert (path, http.post(path, json={"model": CHAT}).status_code) == (path, 401)
    assert http.options("/v1/chat/completions").status_code == 401
    for key in ("first-secret", "second-secret"):
        assert http.get("/v1/models", headers=bearer(key)).status_code == 200
        assert http.get("/control/ps", headers=bearer(key)).status_code == 200
        assert http.get("/v1/models", headers={"x-api-key": key}).status_code == 200  # Anthropic's header
    said = http.post("/v1/chat/completions", headers=bearer("first-secret"), json=chat())
    assert said.status_code == 200

    shown = http.get("/control/info", headers=bearer("first-secret")).text
    written = server.log.read_text() + "".join(path.read_text() for path in server.config_dir.rglob("*.log"))
    assert "first-secret" not in shown + written
    assert "second-secret" not in shown + written
    for proc in server.look():  # engines run models' own code: they do not get the keys
        with open(f"/proc/{proc.pid}/environ", "rb") as environ:
            assert b"second-secret" not in environ.read()


def chat() -> dict:
    return {"model": CHAT, "messages": [{"role": "user", "content": "hello"}]}


def test_control_may_have_a_key_of_its_own(serve, tmp_path):
    file = tmp_path / "control.keys"
    file.write_text("# of the operators\n\n  operator-1 \noperator-2\n")
    _, http = serve({"VLLAMA_API_KEY": "user", "VLLAMA_CONTROL_KEY_FILE": str(file)})
    for path in ("/control/ps", "/control/info", "/debug/journal"):
        refused = http.get(path, headers=bearer("user"))
        assert (path, refused.status_code) == (path, 401)
        assert "`vllama` sends VLLAMA_CONTROL_KEY" in error_of(refused)["message"]
        for key in ("operator-1", "operator-2"):
            assert (path, http.get(path, headers=bearer(key)).status_code) == (path, 200)
    assert http.post("/control/stop", json={"model": CHAT}, headers=bearer("user")).status_code == 401
    assert http.get("/v1/models", headers=bearer("user")).status_code == 200
    assert http.get("/v1/models", headers=bearer("operator-1")).status_code == 200
    assert http.get("/v1/models").status_code == 401


def test_listening_beyond_loopback_without_a_key_is_loud_and_has_no_control(serve):
    server, http = serve({}, "--host", "0.0.0.0")
    assert "WITHOUT an api_key" in server.log.read_text()
    assert "Control and debug routes are switched off" in server.log.read_text()
    assert http.get("/v1/models").status_code == 200
    for path in ("/control/ps", "/control/info", "/debug/events", "/debug/journal"):
        refused = http.get(path)
        assert (path, refused.status_code, error_of(refused)["code"]) == (path, 403, "control_disabled")
    assert http.post("/control/stop", json={"model": CHAT}).status_code == 403


def test_with_a_key_it_may_listen_anywhere_and_is_not_loud(serve):
    server, http = serve({"VLLAMA_API_KEY": "k"}, "--host", "0.0.0.0")
    assert "WITHOUT" not in server.log.read_text()
    assert http.get("/control/ps", headers=bearer("k")).status_code == 200


def test_a_name_that_somebody_else_points_at_us_does_not_reach_control(serve):
    """DNS rebinding: for the browser the page and this server are the same origin, so only the name gives it away."""
    server, http = serve({"VLLAMA_CONTROL_HOSTS": "box.example,other.example"})
    for host in (
        "evil.example",
        f"evil.example:{server.port}",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[",
        "a@b",
    ):
        for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
            refused = http.get("/control/ps", headers=headers)
            assert (host, refused.status_code) in [(host, 403), (host, 400)]
            assert http.post("/control/stop", json={"model": CHAT}, headers=headers).status_code in (400, 403)
            assert http.get("/debug/journal", headers=headers).status_code in (400, 403)
    for host in (
        "localhost",
        f"localhost:{server.port}",
        "LOCALHOST",
        "[::1]:1",
        "192.168.1.7",
        "box.example",
        "other.example:80",
        "a.localhost",
    ):
        assert (host, http.get("/control/ps", headers={"Host": host}).status_code) == (host, 200)
    assert http.get("/debug/journal", headers={"Origin": "http://evil.example"}).status_code == 403


def test_cors_is_for_data_and_for_whom_it_was_configured(serve):
    _, http = serve(
        {"VLLAMA_CORS_ORIGINS": "https://chat.example, http://localhost:3000", "VLLAMA_API_KEY": "k"}
    )
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    for origin in ("https://chat.example", "http://localhost:3000"):
        asked = http.options(
            "/v1/chat/completions", headers={"Origin": origin} | ask
        )  # a preflight has no key
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == origin
        assert "authorization" in asked.headers["access-control-allow-headers"]
        got = http.get("/v1/models", headers={"Origin": origin} | bearer("k"))
        assert (got.status_code, got.headers["access-control-allow-origin"]) == (200, origin)
        assert "X-Vllama-State" in got.headers["access-control-expose-headers"]
        refused = http.get("/v1/models", headers={"Origin": origin})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin)
        commanded = http.post("/control/stop", json={"model": CHAT}, headers={"Origin": origin} | bearer("k"))
        assert commanded.status_code == 403
        assert "access-control-allow-origin" not in commanded.headers
    foreign = http.get("/v1/models", headers={"Origin": "https://evil.example"} | bearer("k"))
    assert "access-control-allow-origin" not in foreign.headers
    assert (
        http.options("/v1/chat/completions", headers={"Origin": "https://evil.example"} | ask).status_code
        == 400
    )


def test_without_cors_no_page_is_told_anything(serve):
    _, http = serve({})
    got = http.get("/v1/models", headers={"Origin": "https://chat.example"})
    assert "access-control-allow-origin" not in got.headers
    assert (
        "access-control-allow-origin"
        not in http.options("/v1/models", headers={"Origin": "https://a.example"}).headers
    )


def test_the_command_line_sends_the_key(serve):
    server, _ = serve({"VLLAMA_API_KEY": "cli-secret,other"})

    def ps(env: dict[str, str]) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "vllama.cli.main", "ps", "--json"]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    with_key = ps(server.environ)
    assert with_key.returncode == 0, with_key.stderr
    assert json.loads(with_key.stdout)["instances"] == []
    without = ps({key: value for key, value in server.environ.items() if key != "VLLAMA_API_KEY"})
    assert without.returncode == 1
    assert "This needs a key" in without.stderr
    assert "VLLAMA_API_KEY" in without.stderr
    assert "cli-secret" not in with_key.stdout + with_key.stderr


def test_the_key_of_the_command_line_is_that_of_control_if_there_is_one():
    assert default_key({}) == ""
    assert default_key({"VLLAMA_API_KEY": "a, b"}) == "a"
    assert default_key({"VLLAMA_API_KEY": "a", "VLLAMA_CONTROL_KEY": "c,d"}) == "c"


def test_keys_come_from_every_source(tmp_path):
    (tmp_path / "keys").write_text("from-file\n")
    (tmp_path / "config.yaml").write_text(
        f"api_key: [listed-1, listed-2]\napi_key_file: {tmp_path / 'keys'}\n"
    )
    keys = read_keys(load_config({"config_dir": tmp_path}, {"VLLAMA_CONTROL_KEY": "c"}))
    for key in ("listed-1", "listed-2", "from-file", "c"):
        assert keys.opens([key], control=False)
    assert keys.opens(["c"], control=True)
    assert not keys.opens(["listed-1"], control=True)
    assert not keys.opens([], control=False)
    assert Keys().opens([], control=True)


def test_a_key_that_is_none_is_said_without_repeating_it(tmp_path):
    for env in ({"VLLAMA_API_KEY": "two words"}, {"VLLAMA_CONTROL_KEY": "schl\u00fcssel"}):
        with pytest.raises(ConfigError) as caught:
            load_config({"config_dir": tmp_path}, env)
        assert not any(value in str(caught.value) for value in env.values())
    empty = tmp_path / "empty"
    empty.write_text("\n# nothing\n")
    for file in (empty, tmp_path / "absent"):
        with pytest.raises(ConfigError, match="api_key_file"):
            read_keys(load_config({"config_dir": tmp_path}, {"VLLAMA_API_KEY_FILE": str(file)}))


def test_only_digests_are_held(tmp_path):
    config = load_config({"config_dir": tmp_path}, {"VLLAMA_API_KEY": "very-secret"})
    for shown in (repr(config), str(config), config.model_dump_json(), repr(read_keys(config))):
        assert "very-secret" not in shown


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_what_is_loopback(address: str, loopback: bool):
    assert is_loopback(address) == loopback
