"""Who runs a model's code: one module a runtime, each in the process of the model's worker."""
