"""`inceptionnet serve`: classifiers over HTTP, with dynamic batches, the Open Inference Protocol, and a page to try it.

Exported files are served without torch; what decodes images runs in processes of its own.
"""

from __future__ import annotations

from inceptionnet.serve.settings import Settings

__all__ = ["Settings"]
