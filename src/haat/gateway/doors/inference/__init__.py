"""The Open Inference Protocol at the front door: any service that takes tasks is a model with named tensors."""

from haat.kernel import compiled

compiled.use("gateway/doors/inference", __path__)
