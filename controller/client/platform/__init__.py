"""A platform as commands see it: one Protocol, `Platform`, whose methods return the JSON documents of the HTTP
interface below `/-/`. Commands render documents and know nothing else, so each of them works alike on the host and
against a server.

Two implementations pass one contract suite (tests/contract/platform_contract.py): `StoredPlatform`
(controller/web/api/platform/stored.py) reads the store, on the host and within the web process, whose views answer
with it; `ServerPlatform` asks a server over HTTP. How a command uses it:

    @click.command()
    @app_argument()
    @output_option
    @remote_options
    @config_option
    def status(remote: Remote, app: str, output: Format) -> int:
        with remote.platform() as platform:  # a server that was named or logged in to, or this host
            document = platform.app(app)
        output.show(document, lambda: echo(document["state"]), (app,))
        return Exit.OK

A new capability is a method here, in both implementations, and a route with a rule in controller/web/auth/rules.py.
Errors are the same on both ways: a view that answers `refusal(error)` (controller/web/api/platform/refusals.py) makes
`ServerPlatform.ask` raise the same Stalled with the same reason and message.
"""

from controller.client.platform.api import AppRequest, Document, LogQuery, Platform, unknown_app
from controller.client.platform.server import ServerPlatform

__all__ = ["AppRequest", "Document", "LogQuery", "Platform", "ServerPlatform", "unknown_app"]
