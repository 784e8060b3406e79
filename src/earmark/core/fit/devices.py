"""The devices of a request: what is wanted, what a stock can offer, and which ones are chosen.

Rules of this file: it names what other rooms use, and does nothing itself. What a stock is stands in `ground.py`, eligibility and locality
in `device_match.py`, the ranking in `device_choice.py`, the proof of a no in `device_flow.py`, a live node's stock in `device_rows.py`.
"""

from __future__ import annotations

from earmark.core.fit.device_flow import Undecided
from earmark.core.fit.device_match import CLASS_PREFIX, policy_of, wanted
from earmark.core.fit.device_offer import Offer, offered

__all__ = [
    "CLASS_PREFIX",
    "Offer",
    "Undecided",
    "offered",
    "policy_of",
    "wanted",
]
