"""The benchmarks are run from a checkout and installed nowhere."""

from __future__ import annotations

import sys

from reference import ROOT

sys.path.append(str(ROOT))
