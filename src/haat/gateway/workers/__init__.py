"""Several gateway processes on one machine: each one's place, how it joins, and who stands in for it."""
