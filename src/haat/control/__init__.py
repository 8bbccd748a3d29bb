"""The control process: control API under ``/api/v1`` and the portal, on FastAPI."""
