"""All checks in their order, and how their findings become lines of the report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from controller.adapters.docker.checks import DOCKER_CHECKS
from controller.config import Settings
from controller.daemon.doctor.apps import check_notifications, check_secrets, check_shares
from controller.daemon.doctor.backups import check_backup
from controller.daemon.doctor.certificate import check_certificate
from controller.daemon.doctor.configuration import check_config, check_platform, check_platform_secrets
from controller.daemon.doctor.folders import check_database_folder, check_private, user_name
from controller.daemon.doctor.git import check_git_http, check_git_library, check_git_program
from controller.daemon.doctor.gpus import check_gpus
from controller.daemon.doctor.issuers import check_issuers
from controller.daemon.doctor.people import check_people
from controller.daemon.doctor.processes import check_daemon, check_web
from controller.daemon.doctor.state import check_asking, check_space, check_state
from controller.daemon.doctor.storage import (
    check_storage,
    check_storage_accounts,
    check_storage_links,
    check_storage_space,
)
from controller.domain.errors import ControllerError
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` is empty if there is no problem."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def doctor(settings: Settings, names: frozenset[str] | None = None) -> list[Check]:
    """Make all checks, or those with these names."""
    return [_check(name, look, settings) for name, look in CHECKS.items() if names is None or name in names]


def _check(name: str, look: Callable[[Settings], str], settings: Settings) -> Check:
    try:
        return Check(name, True, look(settings))
    except Finding as finding:
        return Check(name, False, finding.detail, finding.advice)
    except ControllerError as error:
        return Check(name, False, error.message, Localizable("follow the message"))
    except PermissionError as error:
        return Check(
            name,
            False,
            Localizable("{me} may not read {filename}", me=_me(), filename=error.filename),
            Localizable("run doctor as the daemon's user"),
        )


def _me() -> str:
    return user_name(os.geteuid())


CHECKS: dict[str, Callable[[Settings], str]] = {
    "configuration": check_config,
    "platform folder": check_platform,
    "platform secrets": check_platform_secrets,
    **DOCKER_CHECKS,
    "git library": check_git_library,
    "git program": check_git_program,
    "git over https": check_git_http,
    "state": check_state,
    "asked": check_asking,
    "disk space": check_space,
    "private folder": check_private,
    "database folder": check_database_folder,
    "shares": check_shares,
    "storage": check_storage,
    "storage accounts": check_storage_accounts,
    "storage links": check_storage_links,
    "storage space": check_storage_space,
    "gpus": check_gpus,
    "backup": check_backup,
    "daemon": check_daemon,
    "web": check_web,
    "people": check_people,
    "issuers": check_issuers,
    "certificate": check_certificate,
    "notifications": check_notifications,
    "secrets": check_secrets,
}
