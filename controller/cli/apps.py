"""`prichal app`: everything about apps. Its verbs are also commands of their own, since they are used most."""

from __future__ import annotations

import click

from controller.cli.app_events import events, logs
from controller.cli.app_history import diff, history, plan
from controller.cli.app_orders import create, delete, templates
from controller.cli.app_requests import approve, reconcile, resume, rollback, suspend
from controller.cli.app_status import ls, status
from controller.cli.groups import Group
from controller.cli.session import config_option


@click.group(cls=Group)
@config_option
def app() -> None:
    """Show apps, and control their reconciliation."""


short_forms = (status, events, logs, plan, diff, history, reconcile, suspend, resume, rollback, approve)
for verb in (ls, create, delete, templates, *short_forms):
    app.add_command(verb)

commands = (app, *short_forms)
