"""What providers speak beside the task schema: steps that ask them in their own words and read their answers."""
