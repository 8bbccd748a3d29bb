"""Words the whole house shares. Nothing here does I/O or imports a framework."""
