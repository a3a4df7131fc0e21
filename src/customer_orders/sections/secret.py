"""What no secret looks like."""

from __future__ import annotations

import re

PLACEHOLDER = re.compile("change.?me|placeholder|example|replace|your.?(key|secret)|insert", re.IGNORECASE)
