"""What endpoints speak that don't speak the task schema: a task is written so on its last step to the provider."""
