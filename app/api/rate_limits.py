"""How many requests a key may send in a minute: counted in this process, by key, after the key is found.

GCRA: a key that has rested may send a whole minute's requests at once; they come back evenly, one each 60/N seconds.
"""

import math
from functools import lru_cache
from typing import Any

from throttled import MemoryStore, per_min
from throttled.rate_limiter import GCRARateLimiter

from app import metrics
from app.domain.security.access import Principal
from app.domain.security.keys import ROOT
from app.errors import TooManyRequests
from app.settings import Settings

# As many as the keyring remembers; of each, one number is kept. Beyond it, who was heard least lately begins anew.
KEYS = 10_000
WINDOW_S = 60
STATE = "rate_limit"


class RateLimits:
    """Takes one request off what a key has left."""

    def __init__(self, settings: Settings) -> None:
        self._default = settings.rate_limit_per_minute
        store = MemoryStore(options={"MAX_SIZE": KEYS})
        self._limiter = lru_cache(1_000)(lambda limit: GCRARateLimiter(per_min(limit), store))

    def take(self, principal: Principal, scope: str, state: dict[str, Any]) -> None:
        """Put the headers of the answer into the request's state, where there is a limit; refuse beyond it."""
        limit = principal.rate_limit or self._default
        if not limit or principal.key_id == ROOT:
            return
        found = self._limiter(limit).limit(principal.key_id)
        left = found.state
        headers = state[STATE] = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(left.remaining),
            "X-RateLimit-Reset": str(math.ceil(left.reset_after)),
            "X-RateLimit-Window": str(WINDOW_S),
        }
        if not found.limited:
            return
        metrics.refused.labels(scope).inc()
        wait = max(1, math.ceil(left.retry_after))
        # Above one request a second the wait is rounded up, for the header holds whole seconds.
        headers |= {"X-RateLimit-Remaining": "0", "Retry-After": str(wait)}
        message = f"This key may send {limit} requests in a minute; try again in {wait} s."
        raise TooManyRequests(
            message, limit=limit, window=WINDOW_S, retry_after=wait, retryable=True, retry_after_seconds=wait
        )
