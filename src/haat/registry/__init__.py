"""Models that providers bring: their versions, the keys that sign them, and their way onto the shelf."""
