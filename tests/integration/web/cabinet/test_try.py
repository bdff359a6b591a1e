"""The form with which people call a component."""

from __future__ import annotations

from playwright.sync_api import Route, expect

from tests.support.cabinet import Cabinet

PAGE = "/-/apps/demo-colors/components/namer"


def test_nothing_is_called_before_the_form_is_there(cabinet: Cabinet) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    with cabinet.window("boss") as page:
        page.route("**/demo-colors/colors/openapi.json", hold)
        with page.expect_request("**/demo-colors/colors/openapi.json"):
            cabinet.open(page, PAGE)
        button = page.get_by_role("button", name="Call", exact=True)
        expect(button).to_be_disabled()
        held[0].fulfill(
            json={"paths": {}},
            headers={"access-control-allow-origin": "null", "content-type": "application/json"},
        )
        expect(button).to_be_enabled()
        expect(page.locator("[data-try] form").get_by_label("Method")).to_have_value("POST")
        assert page.locator("[data-result] > *").count() == 0
