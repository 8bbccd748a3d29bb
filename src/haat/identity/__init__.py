"""Who is here: organisations, users and their roles, sessions, applications and API keys."""
