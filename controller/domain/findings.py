"""What `prichal doctor` finds wrong, whichever package has looked."""

from __future__ import annotations


class Finding(Exception):
    """`detail` says what is wrong, `advice` what to do about it."""

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = advice
