"""Run the robustness campaigns alone."""

from benchmarks.robustness import __doc__ as doc
from benchmarks.robustness import measure
from benchmarks.sections import run_alone

run_alone(doc or "", measure)
