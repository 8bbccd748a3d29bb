"""Moving calls from one version of a service to another: rollouts, shadow traffic, experiments."""
