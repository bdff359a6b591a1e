"""The composition root and the daemon's life. Whatever needs Docker or Git is wired here."""

from controller.daemon.inspect import logs, plan
from controller.daemon.run import run, up

__all__ = ["logs", "plan", "run", "up"]
