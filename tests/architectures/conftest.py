"""Property tests here take what time they take: a deadline would make them depend on the machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
