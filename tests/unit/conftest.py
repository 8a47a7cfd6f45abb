"""What all unit tests share: Hypothesis does not watch the clock."""

from __future__ import annotations

import hypothesis

# A busy machine is no fault of the code: no deadline for a single example.
hypothesis.settings.register_profile('unit', deadline=None)
hypothesis.settings.load_profile('unit')
