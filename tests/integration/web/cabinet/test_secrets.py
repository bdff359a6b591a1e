"""The page of an app's Secrets: what is needed is set there, typed or from a file, and never seen again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from controller.domain.names import AppName
from controller.domain.people.accounts import AuditEntry
from tests.integration.web.conftest import Web
from tests.support.cabinet import Cabinet
from tests.support.recorded import set_secret

APP = AppName("demo-colors")
PAGE = f"/-/apps/{APP}/secrets"
VALUE = "correct-horse-battery-staple"


def opened(cabinet: Cabinet, page: Page, path: str = PAGE) -> None:
    with page.expect_response(lambda response: "live=1" in response.url) as found:
        cabinet.open(page, path)
    assert found.value.status == 200


def apply(web: Web) -> dict[str, dict[str, str]]:
    """As the daemon does: it takes in what others ask for before each transaction."""
    with web.store.transaction():
        pass
    found = web.store.secrets.of(APP).readable
    return {secret.name: {key: value.reveal() for key, value in secret.values} for secret in found}


def send(page: Page, act: Callable[[], None]) -> None:
    with page.expect_navigation(wait_until="load"):
        act()
    expect(page.get_by_role("status")).to_contain_text("encrypted for the platform's daemon")


def test_what_is_needed_is_set_from_the_page_of_the_app(cabinet: Cabinet, platform: Web) -> None:
    addresses: list[str] = []
    with cabinet.window("maker") as page:
        page.on("request", lambda request: addresses.append(request.url))
        opened(cabinet, page, f"/-/apps/{APP}")
        page.get_by_role("link", name="Secrets").click()
        needed = page.get_by_role("region", name="Needed and not set")
        expect(needed).to_contain_text("MLComponent namer, ExperimentPipeline train")
        needed.get_by_role("link", name="Set mail").click()
        expect(page.get_by_label("Secret", exact=True)).to_have_value("mail")
        page.get_by_label("Key", exact=True).fill("PASSWORD")
        page.get_by_label("Value", exact=True).fill(f"{VALUE}\nsecond line\n")
        send(page, page.get_by_role("button", name="Set the key").click)
        changes = page.get_by_role("region", name="Changes")
        expect(changes).to_contain_text("waits for the daemon")
        assert apply(platform)["mail"] == {"PASSWORD": f"{VALUE}\nsecond line\n"}
        expect(changes).to_contain_text("the Secret 'mail': set PASSWORD (by maker)")
        expect(needed).to_have_count(0)
        expect(page.get_by_role("region", name="Set by people")).to_contain_text("PASSWORD")
        assert VALUE not in page.content()
        page.go_back()
        expect(page.get_by_label("Value", exact=True)).to_have_value("")
        assert VALUE not in page.content()
    assert not [address for address in addresses if VALUE in address]
    assert VALUE not in platform.log.read_text()
    entry = newest(cabinet)
    assert (entry.who, entry.act, entry.subject, entry.detail) == (
        "maker",
        "secret set",
        f"{APP}/mail",
        "PASSWORD",
    )


def newest(cabinet: Cabinet) -> AuditEntry:
    return cabinet.people.acts(limit=1)[0]


def test_a_file_is_taken_as_it_is(cabinet: Cabinet, platform: Web, tmp_path: Path) -> None:
    pem = "-----BEGIN KEY-----\r\nключ\n-----END KEY-----\n"
    (tmp_path / "key.pem").write_bytes(pem.encode())
    with cabinet.window("maker") as page:
        opened(cabinet, page, f"{PAGE}?secret=tls&key=tls.key")
        page.get_by_label("Value", exact=True).fill("this does not count")
        page.get_by_label("Or a file").set_input_files(tmp_path / "key.pem")
        send(page, page.get_by_role("button", name="Set the key").click)
        assert apply(platform)["tls"] == {"tls.key": pem}


def test_a_form_that_is_refused_comes_back_without_the_value(
    cabinet: Cabinet, platform: Web, tmp_path: Path
) -> None:
    (tmp_path / "image.bin").write_bytes(b"\xff\xfe\x00")
    with cabinet.window("maker") as page:
        for name, key, value, says in (
            ("Not A Label", "KEY", VALUE, "cannot be the name of a Secret"),
            ("fine", "with blank", VALUE, "cannot be a key"),
            ("fine", "KEY", "", "the value of KEY is empty"),
            ("fine", "KEY", "x" * 100_001, "more than 100000 bytes"),
        ):
            opened(cabinet, page)
            page.get_by_label("Secret", exact=True).fill(name)
            page.get_by_label("Key", exact=True).fill(key)
            page.get_by_label("Value", exact=True).fill(value)
            page.get_by_role("button", name="Set the key").click()
            expect(page.get_by_role("alert").filter(has_text=says)).to_be_visible()
            expect(page.get_by_label("Key", exact=True)).to_have_value(key)
            expect(page.get_by_label("Value", exact=True)).to_have_value("")
        opened(cabinet, page, f"{PAGE}?secret=fine&key=KEY")
        page.get_by_label("Or a file").set_input_files(tmp_path / "image.bin")
        page.get_by_role("button", name="Set the key").click()
        expect(page.get_by_role("alert").filter(has_text="store a binary file in Base64")).to_be_visible()
        cabinet.complaints()  # the browser notes what was refused
    assert "fine" not in apply(platform)


def test_keys_and_secrets_are_removed_after_a_question(cabinet: Cabinet, platform: Web) -> None:
    for number, key in enumerate(("ONE", "TWO", "a/b?c&d")):
        set_secret(platform.store, 100 + number, "removable", (key, "value"))
    apply(platform)
    with cabinet.window("maker") as page:
        opened(cabinet, page)
        group = page.get_by_role("region", name="Set by people").locator("tbody", has_text="removable")
        for key in ("TWO", "a/b?c&d"):
            row = group.locator("tr", has_text=key)
            row.get_by_text("Remove", exact=True).first.click()
            send(page, row.locator(f"details[open] button[value='{key}']").click)
            assert key not in apply(platform)["removable"]
        group.get_by_text("Remove the Secret").first.click()
        send(page, group.locator("details[open] button").click)
        assert "removable" not in apply(platform)
        expect(group).to_have_count(0)


def test_who_may_not_steer_the_app_sees_none_of_it(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("guest") as page:
        cabinet.open(page, f"/-/apps/{APP}")
        expect(page.get_by_role("heading", name="Components")).to_be_visible()
        assert page.get_by_role("link", name="Secrets").count() == 0
        cabinet.open(page, PAGE)
        expect(page.get_by_text("your role does not allow this")).to_be_visible()
        cabinet.complaints()


def test_a_form_of_another_session_changes_nothing(cabinet: Cabinet, platform: Web) -> None:
    before = apply(platform)
    boundary = "x" * 20
    for value in ("", "made-up.0123"):
        fields = {"form": value, "secret": "mail", "key": "KEY", "value": VALUE}
        parts = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
            for name, text in fields.items()
        )
        reply = platform.ask(
            "POST",
            PAGE,
            f"{parts}--{boundary}--\r\n".encode(),
            Content_Type=f"multipart/form-data; boundary={boundary}",
            Origin="null",
            Cookie=f"prichal-session={cabinet.session('maker')}",
        )
        assert reply.status == 401
    assert apply(platform) == before


def test_a_large_file_is_refused_before_it_is_read(cabinet: Cabinet, platform: Web, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"m" * 300_000)
    with cabinet.window("maker") as page:
        opened(cabinet, page, f"{PAGE}?secret=fine&key=KEY")
        page.get_by_label("Or a file").set_input_files(tmp_path / "model.bin")
        page.get_by_role("button", name="Set the key").click()
        expect(page.get_by_role("alert").first).to_contain_text("262144 bytes")
        cabinet.complaints()


def test_without_scripts_it_works_too(cabinet: Cabinet, platform: Web) -> None:
    context = cabinet.browser.new_context(java_script_enabled=False)
    try:
        name = {"name": "prichal-session", "value": cabinet.session("maker"), "url": f"{cabinet.base}/-/"}
        context.add_cookies([name])  # type: ignore[list-item]
        page = context.new_page()
        page.goto(f"{cabinet.base}{PAGE}?secret=plain&key=KEY")
        page.get_by_label("Value", exact=True).fill("of no script")
        page.get_by_role("button", name="Set the key").click()
        expect(page.get_by_role("status")).to_contain_text("encrypted for")
        assert apply(platform)["plain"] == {"KEY": "of no script"}
    finally:
        context.close()
