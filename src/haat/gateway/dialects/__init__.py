"""What endpoints speak that programs know already, or that is not the task schema.

A task is written in a model's or a service's own words on its last step to the provider. Where callers and endpoint
speak the same, requests and answers pass as they are, and only those fields are read by which calls are metered.
"""

from haat.kernel import compiled

compiled.use("gateway/dialects", __path__)
