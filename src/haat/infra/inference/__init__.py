"""The Open Inference Protocol, version 2: its tensors, and how the task schema is written in them.

Pure: bytes and documents in, bytes and documents out. The gateway speaks it at a door and to providers, the
catalog when it tries a service.
"""

from haat.kernel import compiled

compiled.use("infra/inference", __path__)
