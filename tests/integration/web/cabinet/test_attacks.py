"""A hostile module's page in the browser of somebody who has the cabinet open: it gets no token of a page, cannot
steer it, and what a module says in names and messages stays a text."""

from __future__ import annotations

from playwright.sync_api import expect

from controller.domain.names import AppName
from tests.integration.web.conftest import Web
from tests.support.cabinet import Cabinet
from tests.support.recorded import HOSTILE

TOKEN = "document.querySelector('meta[name=\"prichal-page\"]').content"
#: Tries to reach into a window of the cabinet that this page has opened itself.
REACH = """async (url) => {
  const other = window.open(url);
  await new Promise((done) => setTimeout(done, 1500));
  const found = {};
  for (const [name, look] of Object.entries({
    document: () => other.document.body.textContent,
    location: () => other.location.href,
    frames: () => other.frames.length && other.frames[0].document,
    history: () => other.history.length,
    own: () => String(other.closed),
  })) {
    try { found[name] = String(look()); } catch (error) { found[name] = error.name; }
  }
  other.postMessage({ kind: "fragment", html: "<b>taken</b>" }, "*");
  other.close();
  return found;
}"""
ASK = """async ([path, token, method]) => {
  try {
    const answer = await fetch(path, { method, headers: { "X-Prichal-Page": token } });
    return [answer.status, await answer.text()];
  } catch (error) {
    return [0, error.name];
  }
}"""


def test_a_page_at_the_same_origin_cannot_reach_into_ours(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("boss") as page:
        cabinet.open(
            page, "/hostile/page.html"
        )  # a page of this host that is not ours: an error of the gateway
        reached = page.evaluate(REACH, f"{cabinet.base}/-/apps/demo-colors")
        assert reached["own"] == "false"
        assert {name: text for name, text in reached.items() if name != "own"} == {
            "document": "SecurityError",
            "location": "SecurityError",
            "frames": "0",
            "history": "SecurityError",
        }
        cabinet.complaints()


def test_not_even_a_token_that_leaked_is_good_there(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("maker") as page:
        cabinet.open(page, "/-/apps/demo-colors")
        token = page.evaluate(TOKEN)
        path = "/-/apps/demo-colors"
        assert page.evaluate(ASK, [f"{path}/events", token, "GET"])[0] == 200  # the control: our own page
        other = page.context.new_page()
        cabinet.open(other, "/hostile/page.html")
        for method, place in (("GET", path), ("GET", f"{path}/events"), ("POST", f"{path}/suspend")):
            assert other.evaluate(ASK, [place, token, method])[0] == 401
        assert not platform.store.apps.status(AppName("demo-colors")).suspended
        cabinet.complaints()


def test_a_script_of_a_page_reaches_no_further_than_its_page(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("guest") as page:
        cabinet.open(page, "/-/apps/demo-colors")
        token = page.evaluate(TOKEN)
        for method, place in (
            ("GET", "/-/apps/lab-speech"),
            ("GET", "/-/tokens"),
            ("GET", "/-/apps"),
            ("POST", "/-/apps/demo-colors/suspend"),
        ):
            assert page.evaluate(ASK, [place, token, method])[0] in (0, 401), place
        cabinet.complaints()


def test_what_a_module_says_is_a_text(cabinet: Cabinet, platform: Web) -> None:
    with cabinet.window("boss") as page:
        for path in ("/-/", "/-/apps/strange-words"):
            cabinet.open(page, path)
            expect(page.get_by_text("Ошибка «модели» </script>").first).to_be_attached()
            assert "taken" not in page.title()
            assert page.locator("main script, main img").count() == 0
        assert HOSTILE.partition("\n")[2] in page.locator("pre").first.text_content()  # type: ignore[operator]


def test_no_text_becomes_an_element_by_mistake(cabinet: Cabinet, platform: Web) -> None:
    """Trusted Types: a module of ours that would set innerHTML fails, whatever the text."""
    with cabinet.window("boss") as page:
        cabinet.open(page, "/-/")
        refused = """() => { try { document.body.innerHTML = "<b>x</b>"; return ""; }
            catch (error) { return error.name; } }"""
        assert page.evaluate(refused) == "TypeError"
        inline = """() => { const one = document.createElement("style"); one.textContent = "body { color: red }";
            document.head.append(one); return getComputedStyle(document.body).color; }"""
        assert page.evaluate(inline) != "rgb(255, 0, 0)"
        cabinet.complaints()
