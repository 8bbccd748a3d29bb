"""Answers that are given again: what makes two questions the same, and where their answers are kept."""
