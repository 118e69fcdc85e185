"""Entry points of scheduled flows.

Prefect imports them with the working directory first on the path. This name is ours alone; `flows`
and `tasks` may be the user's own there.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from flows.retraining import retraining

__all__ = ["retraining"]
