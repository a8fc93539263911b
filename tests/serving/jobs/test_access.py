"""Who has access to the file service: this machine, or whoever has the token."""

import pytest

from jdfd_keras.serving.jobs import access as access_module
from jdfd_keras.serving.jobs.access import COOKIE, Access, check_exposure, is_loopback
from jdfd_keras.serving.jobs.request_errors import RequestError
from tests.serving.jobs.fake_service import TOKEN, serve_fake

BEARER = {"Authorization": f"Bearer {TOKEN}"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def guarded(tmp_path):
    """A server with a token."""
    with serve_fake(tmp_path / "guarded", token=TOKEN) as server:
        yield server


def log_in(server, token=TOKEN):
    status, _, headers = server.request("POST", "/login", f"token={token}", FORM)
    return status, headers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_a_loopback_address_needs_no_token(host):
    assert is_loopback(host)
    check_exposure(host, token="")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "host.example", "127.1.evil"])
def test_another_address_needs_a_token(host):
    with pytest.raises(ValueError, match=r"Expected a --token .* got none. Try --token @FILE"):
        check_exposure(host, token="")
    check_exposure(host, token=TOKEN)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-horse-battery"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": f"{COOKIE}={TOKEN}"},
    ],
)
def test_without_the_token_nothing_is_answered(guarded, headers):
    for method, path in [
        ("GET", "/v1/files"),
        ("POST", "/v1/files?name=clip.mp4"),
        ("DELETE", f"/v1/files/{'0' * 32}"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/v1/files/unknown/path"),
    ]:
        status, document, found = guarded.request(method, path, None, headers)
        assert (status, document["error"]["code"]) == (401, "unauthorized")
        assert found["www-authenticate"] == "Bearer"
        assert TOKEN not in str(document)
    assert guarded.service.kept == []


def test_the_token_gives_access(guarded):
    assert guarded.request("GET", "/v1/files", None, BEARER)[0] == 200
    status, job, _ = guarded.request("POST", "/v1/files?name=clip.mp4", b"clip", BEARER)
    assert status == 202
    assert guarded.request("DELETE", job["links"]["self"], None, BEARER)[0] == 204


def test_a_token_in_the_url_gives_no_access(guarded):
    assert guarded.request("GET", f"/v1/files?token={TOKEN}")[0] == 401


def test_a_login_starts_a_session_that_a_logout_ends(guarded):
    assert guarded.request("GET", "/")[2]["location"] == "/login"
    assert guarded.request("GET", "/login")[0] == 200
    status, headers = log_in(guarded)
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    session = {"Cookie": cookie.split(";")[0]}
    for path in ("/", "/app.js", "/v1/files"):
        assert guarded.request("GET", path, None, session)[0] == 200
    assert guarded.request("POST", "/logout", b"", session)[2]["location"] == "/login"
    assert guarded.request("GET", "/v1/files", None, session)[0] == 401


def test_a_proxy_with_a_login_of_its_own_does_not_end_a_session(guarded):
    proxy = {"Authorization": "Basic dXNlcjpwYXNzd29yZA=="}
    session = {"Cookie": log_in(guarded)[1]["set-cookie"].split(";")[0]}
    assert guarded.request("GET", "/v1/files", None, proxy)[0] == 401
    assert guarded.request("GET", "/v1/files", None, proxy | session)[0] == 200
    wrong = {"Authorization": "Bearer wrong"}
    assert guarded.request("GET", "/v1/files", None, wrong | session)[0] == 401


def test_a_wrong_token_starts_no_session(guarded):
    for token in ("", "wrong", f"{TOKEN}%00"):
        status, headers = log_in(guarded, token)
        assert status == 401
        assert "set-cookie" not in headers


def test_a_session_ends_by_itself_and_the_oldest_makes_room(monkeypatch):
    access = Access(TOKEN)
    monkeypatch.setattr(access_module, "MAX_SESSIONS", 2)
    first, second, third = (access.start_session() for _ in range(3))
    assert [access.is_session(key) for key in (first, second, third)] == [False, True, True]
    monkeypatch.setattr(access_module, "SESSION_S", -1.0)
    assert not access.is_session(access.start_session())


def test_a_name_that_resolves_to_this_machine_is_refused_without_a_token(server, guarded):
    host = {"Host": "rebound.example:8501"}
    status, document, _ = server.request("GET", "/v1/files", None, host)
    assert (status, document["error"]["code"]) == (403, "forbidden_host")
    assert server.request("GET", "/", None, host)[0] == 403
    for name in ("localhost", "127.0.0.1:1234", "[::1]:8501"):
        assert server.request("GET", "/v1/files", None, {"Host": name})[0] == 200
    # With a token a proxy may use any name.
    assert guarded.request("GET", "/v1/files", None, host | BEARER)[0] == 200


@pytest.mark.parametrize("host", ["", "a b", "user@localhost", "localhost:port", "localhost/x"])
def test_a_host_that_is_not_a_name_is_refused(host):
    with pytest.raises(RequestError) as caught:
        Access(TOKEN).check_site("GET", {"Host": host})
    assert caught.value.code == "forbidden_host"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_cannot_change_anything(server, headers):
    job = server.upload()[1]
    for method, path in [
        ("POST", "/v1/files?name=clip.mp4"),
        ("DELETE", job["links"]["self"]),
        ("POST", "/login"),
        ("POST", "/logout"),
    ]:
        status, document, _ = server.request(method, path, b"other", headers)
        assert (status, document["error"]["code"]) == (403, "foreign_origin")
    assert server.request("GET", "/v1/files")[1]["total"] == 1


def test_the_page_itself_can(server):
    origin = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert server.request("POST", "/v1/files?name=clip.mp4", b"clip", origin)[0] == 202


def test_every_response_has_the_headers_of_security(server):
    job = server.upload()[1]
    server.service.finish()
    for path in ("/", "/v1/files", job["links"]["report"], "/v1/files/none"):
        _, _, headers = server.request("GET", path)
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["cache-control"] == "no-store", path
        assert "access-control-allow-origin" not in headers
        assert headers["cross-origin-resource-policy"] == "same-origin", path
        assert "referrer-policy" in headers, path
        assert "frame-ancestors" in headers["content-security-policy"], path
