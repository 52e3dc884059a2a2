"""What becomes of the text: compiled ahead of time, measured, or interpreted."""
