"""`prichal doctor` checks whether this machine is fit, and says what to do if not. It changes nothing, and
removes the short-lived container of a check.

Each check is a function from the settings to a sentence about what was found. If something is wrong, it
raises `Finding` with advice. The engine's checks come from its adapter. Errors of the packages that a check calls
become findings, too, so that one problem does not hide others.

`checks` has the table of all checks; the other modules have the checks of a subject each.
"""

from controller.daemon.doctor.checks import CHECKS, Check, doctor

__all__ = ["CHECKS", "Check", "doctor"]
